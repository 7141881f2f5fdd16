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
from .faces import save
from .labels import open_labels
from .latents import open_latents
from .loop import Run, below, learning_rate, random_for

CAPTIONS, CHUNK = 8, 4096


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


def train_base(settings: config.Config, latents: Path, labels: Path, folder: Path) -> Model:
    """Train until the budget is spent, then write the averages to `folder/final`, and return them."""
    torch.manual_seed(settings.seed)
    ours = settings.base
    tokenizer = open_tokenizer(folder / "tokenizer", ours.text_length)
    pictures = open_latents(latents, open_labels(labels, "train"))
    data = Captioned(pictures, open_tokens(folder / "tokens.npz", pictures, tokenizer, settings.seed), tokenizer, ours)
    model = place(Model(ours, tokenizer, *data.latents.shape[1:3]))
    optimizer = torch.optim.AdamW(
        model.parameters(), ours.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    average = EMAModel(model.parameters(), decay=ours.ema, foreach=True)
    parts = {"model": model, "optimizer": optimizer, "average": average}
    run = Run(folder, parts, ours.minutes, ours.samples, ours.batch)
    average.to(device())
    fast(model)
    loss_of = Loss(build_scheduler(), ours.min_snr)

    def update(number: int, progress: float) -> dict[str, float | torch.Tensor]:
        learning_rate(optimizer, ours.learning_rate, number, ours.warmup_steps, progress)
        optimizer.zero_grad()
        random = random_for(settings.seed + 1, number, device())
        loss, plain = loss_of(model, *data.batch(random), random)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.step(model.parameters())
        return {"loss": loss.detach(), "v": plain.detach(), "norm": norm}

    run.train(update)
    average.copy_to(model.parameters())
    save_base(model, folder / "final")
    return model


def save_base(model: Model, folder: Path) -> None:
    """Write the folders of the networks and of the tokenizer, as a pipeline has them."""
    model.unet.save_pretrained(folder / "unet")
    model.text_encoder.save_pretrained(folder / "text_encoder")
    model.tokenizer.save_pretrained(folder / "tokenizer")


def open_tokenizer(folder: Path, length: int) -> CLIPTokenizer:
    """The one of this training: which of two words that are equally common comes first is chance in each new one."""
    if not folder.exists():
        temporary = folder.with_name("tokenizer.tmp")
        build_tokenizer(length).save_pretrained(temporary)
        temporary.replace(folder)
    return CLIPTokenizer.from_pretrained(folder)


class Captioned:
    """Batches of latents and captions, drawn on the device.

    On a GPU all latents lie there, on a processor they are read from disk. Every picture has `CAPTIONS` captions, made
    and turned into tokens before the training, for which a GPU would have to wait.
    """

    def __init__(
        self, pictures: dict[str, np.ndarray], tokens: torch.Tensor, tokenizer: CLIPTokenizer, settings: config.Base
    ) -> None:
        self.settings, self.latents = settings, torch.from_numpy(pictures["latents"])
        styled = pictures["style"] > 0
        self.rows = [torch.from_numpy(np.flatnonzero(styled == kind)).to(device()) for kind in (False, True)]
        self.tokens = tokens.to(device())
        self.nothing = torch.tensor(tokenizer("", padding="max_length").input_ids, device=device())
        if torch.cuda.is_available():
            self.latents = self.latents.to(device())

    def batch(self, random: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (batch, channels, side, side) and tokens (batch, length); plain photos first."""
        size, ours = self.settings.batch, self.settings
        styled = round(ours.styled_share * size)
        counts = (size - styled, styled)
        chosen = torch.cat([of[below(len(of), n, random)] for of, n in zip(self.rows, counts, strict=True)])
        latents = self.latents[chosen].to(device()).float().contiguous(memory_format=torch.channels_last)
        tokens = self.tokens[chosen, below(CAPTIONS, size, random)].long()
        dropped = torch.rand(size, generator=random, device=device()) < ours.caption_drop
        return latents, torch.where(dropped[:, None], self.nothing, tokens)


def open_tokens(file: Path, pictures: dict[str, np.ndarray], tokenizer: CLIPTokenizer, seed: int) -> torch.Tensor:
    """Captions of all pictures as tokens, (pictures, CAPTIONS, length) int16; made once, which takes a minute."""
    if not file.exists():
        save(file, tokens=caption_tokens(pictures["style"], pictures["attributes"], tokenizer, seed))
    with np.load(file, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["tokens"])


def caption_tokens(style: np.ndarray, attributes: np.ndarray, tokenizer: CLIPTokenizer, seed: int) -> np.ndarray:
    """New captions as tokens, (pictures, CAPTIONS, length) int16."""
    dice = random.Random(seed)
    found = []
    for start in range(0, len(style), CHUNK):
        part = range(start, min(start + CHUNK, len(style)))
        texts = [caption(style[i], attributes[i], dice) for i in part for _ in range(CAPTIONS)]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="np").input_ids
        found.append(tokens.astype(np.int16).reshape(len(part), CAPTIONS, -1))
    return np.concatenate(found)


class Loss:
    """v-prediction with the min-SNR weight (Hang et al. 2023, eq. for v: min(SNR, γ) / (SNR + 1))."""

    def __init__(self, scheduler: DDIMScheduler, min_snr: float) -> None:
        self.scheduler, self.min_snr = scheduler, min_snr

    def __call__(
        self, model: nn.Module, latents: torch.Tensor, tokens: torch.Tensor, random_numbers: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted loss and plain mean square error of v, both scalars."""
        steps = self.scheduler.config.num_train_timesteps
        timesteps = torch.randint(steps, (len(latents),), generator=random_numbers, device=latents.device)
        noise = torch.randn(latents.shape, generator=random_numbers, device=latents.device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        with autocast():
            found = model(noisy, timesteps, tokens)
        wanted = self.scheduler.get_velocity(latents, noise, timesteps)
        error = (found.float() - wanted).square().mean((1, 2, 3))
        snr = compute_snr(self.scheduler, timesteps)
        return (error * snr.clamp(max=self.min_snr) / (snr + 1)).mean(), error.mean()
