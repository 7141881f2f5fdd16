"""Stage `base`: UNet and text encoder trained together by denoising latents with captions."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from idgen.losses import DenoisingLoss, Parametrisation

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
    heads: Any = tuple(channels // settings.heads_of for channels in settings.channels)
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=settings.channels,
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * (len(settings.channels) - 1)),
        up_block_types=(*["CrossAttnUpBlock2D"] * (len(settings.channels) - 1), "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=heads,
        cross_attention_dim=settings.text_width,
        norm_num_groups=16,
    )


def build_text_encoder(settings: config.Base, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A small CLIP text model; it learns together with the UNet."""
    tokens: dict[str, Any] = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.text_width,
            intermediate_size=4 * settings.text_width,
            num_hidden_layers=settings.text_layers,
            num_attention_heads=settings.text_width // 32,
            max_position_embeddings=settings.text_length,
            projection_dim=settings.text_width,
            **tokens,
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
    """Both networks as one module, with one optimizer, one average and one checkpoint."""

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
    assert ours is not None
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
    scheduler: Any = build_scheduler()
    plain = DenoisingLoss(parametrisation=Parametrisation.of(scheduler))
    weighted = replace(plain, snr_gamma=ours.min_snr)

    def update(number: int, progress: float) -> dict[str, float | torch.Tensor]:
        learning_rate(optimizer, ours.learning_rate, number, ours.warmup_steps, progress)
        optimizer.zero_grad()
        random = random_for(settings.seed + 1, number, device())
        latents, tokens = data.batch(random)
        timesteps = below(scheduler.config.num_train_timesteps, len(latents), random)
        noise = torch.randn(latents.shape, generator=random, device=latents.device)
        with autocast():
            found = model(scheduler.add_noise(latents, noise, timesteps), timesteps, tokens)
        loss = weighted(found, latents, noise, timesteps).mean()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.step(model.parameters())
        return {"loss": loss.detach(), "v": plain(found.detach(), latents, noise, timesteps).mean(), "norm": norm}

    run.train(update)
    average.copy_to(model.parameters())
    save_base(model, folder / "final")
    return model


def save_base(model: Model, folder: Path) -> None:
    """Write the networks and the tokenizer in folders with the names that a pipeline uses."""
    model.unet.save_pretrained(folder / "unet")
    model.text_encoder.save_pretrained(folder / "text_encoder")
    model.tokenizer.save_pretrained(folder / "tokenizer")


def open_tokenizer(folder: Path, length: int) -> CLIPTokenizer:
    """The tokenizer of this training.

    It is made once: the order of words that are equally frequent is random.
    """
    if not folder.exists():
        temporary = folder.with_name("tokenizer.tmp")
        build_tokenizer(length).save_pretrained(temporary)
        temporary.replace(folder)
    return CLIPTokenizer.from_pretrained(folder)


class Captioned:
    """Batches of latents and captions, drawn on the device.

    The latents are kept on a GPU or read from disk on a CPU. Every picture has `CAPTIONS` captions, whose tokens are
    computed before the training, so that a GPU does not wait for them.
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
