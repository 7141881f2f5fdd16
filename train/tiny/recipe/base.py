"""Stage 4: UNet and text encoder together, from noise to latents, by captions."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from . import config
from .captions import build_tokenizer, caption
from .device import autocast, device, fast, place
from .labels import open_labels
from .latents import open_latents
from .loop import Run, learning_rate, random_for


def build_unet(settings: config.Base, latent_channels: int, side: int) -> UNet2DConditionModel:
    """Attention at every level but the finest, where it would cost three times the rest of the network."""
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=settings.channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (len(settings.channels) - 1)),
        up_block_types=(*["CrossAttnUpBlock2D"] * (len(settings.channels) - 1), "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=tuple(channels // settings.heads_of for channels in settings.channels),
        cross_attention_dim=settings.text_width,
        norm_num_groups=16,
    )


def build_text_encoder(settings: config.Base, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A small CLIP text model; it learns together with the UNet."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.text_width,
            intermediate_size=4 * settings.text_width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=settings.text_width // 32,
            max_position_embeddings=settings.text_length,
            projection_dim=settings.text_width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise, v-prediction (Salimans & Ho 2022), steps counted from the noisiest end."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


class Model(nn.Module):
    """Both networks under one roof: one optimizer, one average, one checkpoint."""

    def __init__(self, settings: config.Base, tokenizer: CLIPTokenizer, latent_channels: int, side: int) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.unet = build_unet(settings, latent_channels, side)
        self.text_encoder = build_text_encoder(settings, self.tokenizer)

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """v of (batch, channels, side, side) at (batch,) timesteps under captions (batch, text_length)."""
        words = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, words).sample


def train_base(settings: config.Config, latents: Path, labels: Path, folder: Path) -> None:
    """Train until the budget is spent, then write the averages to `folder/final`."""
    torch.manual_seed(settings.seed)
    ours = settings.base
    data = Captioned(open_latents(latents, open_labels(labels, "train")), ours, settings.seed)
    model = place(Model(ours, open_tokenizer(folder / "tokenizer", ours.text_length), *data.latents.shape[1:3]))
    optimizer = torch.optim.AdamW(
        model.parameters(), ours.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    average = EMAModel(model.parameters(), decay=ours.ema)
    parts = {"model": model, "optimizer": optimizer, "average": average}
    run = Run(folder, parts, ours.minutes, ours.samples, ours.batch)
    average.to(device())
    fast(model)
    loss_of = Loss(build_scheduler(), ours.min_snr)

    def update(number: int, progress: float) -> dict[str, float | torch.Tensor]:
        learning_rate(optimizer, ours.learning_rate, number, ours.warmup_steps, progress)
        optimizer.zero_grad()
        latents, tokens, dice = data.batch(number, model.tokenizer)
        loss, plain = loss_of(model, latents, tokens, dice)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.step(model.parameters())
        return {"loss": loss.detach(), "v": plain.detach(), "norm": norm}

    run.train(update)
    average.copy_to(model.parameters())
    model.unet.save_pretrained(folder / "final" / "unet")
    model.text_encoder.save_pretrained(folder / "final" / "text_encoder")
    model.tokenizer.save_pretrained(folder / "final" / "tokenizer")


def open_tokenizer(folder: Path, length: int) -> CLIPTokenizer:
    """The one of this training: which of two words that are equally common comes first is chance in each new one."""
    if not folder.exists():
        temporary = folder.with_name("tokenizer.tmp")
        build_tokenizer(length).save_pretrained(temporary)
        temporary.replace(folder)
    return CLIPTokenizer.from_pretrained(folder)


class Captioned:
    """Batches of latents and captions; which ones follows from the seed and the number of the step."""

    def __init__(self, data: dict[str, np.ndarray], settings: config.Base, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.style, self.attributes, self.latents = data["style"], data["attributes"], data["latents"]
        self.rows = [torch.from_numpy(np.flatnonzero((self.style > 0) == styled)) for styled in (False, True)]

    def batch(self, number: int, tokenizer: CLIPTokenizer) -> tuple[torch.Tensor, torch.Tensor, torch.Generator]:
        """Latents (batch, channels, side, side), tokens (batch, length), and the step's random numbers."""
        random_numbers = random_for(self.seed + 1, number)
        styled = round(self.settings.styled_share * self.settings.batch)
        chosen = torch.cat(
            [
                rows[torch.randint(len(rows), (count,), generator=random_numbers)]
                for rows, count in zip(self.rows, (self.settings.batch - styled, styled), strict=True)
            ]
        )
        dice = random.Random(self.seed * 1_000_003 + number)
        captions = [
            "" if dice.random() < self.settings.caption_drop else caption(self.style[i], self.attributes[i], dice)
            for i in chosen.tolist()
        ]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        latents = torch.from_numpy(self.latents[chosen.numpy()]).to(device()).float()
        return latents.contiguous(memory_format=torch.channels_last), tokens.to(latents.device), random_numbers


class Loss:
    """v-prediction with the min-SNR weight (Hang et al. 2023, eq. for v: min(SNR, γ) / (SNR + 1))."""

    def __init__(self, scheduler: DDIMScheduler, min_snr: float) -> None:
        self.scheduler, self.min_snr = scheduler, min_snr

    def __call__(
        self, model: nn.Module, latents: torch.Tensor, tokens: torch.Tensor, random_numbers: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted loss and plain mean square error of v, both scalars."""
        steps = self.scheduler.config.num_train_timesteps
        timesteps = torch.randint(steps, (len(latents),), generator=random_numbers).to(latents.device)
        noise = torch.randn(latents.shape, generator=random_numbers).to(latents.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        with autocast():
            found = model(noisy, timesteps, tokens)
        wanted = self.scheduler.get_velocity(latents, noise, timesteps)
        error = (found.float() - wanted).square().mean((1, 2, 3))
        snr = compute_snr(self.scheduler, timesteps)
        return (error * snr.clamp(max=self.min_snr) / (snr + 1)).mean(), error.mean()
