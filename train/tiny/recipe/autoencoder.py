"""Stages `encoder` and `autoencoder`: an `AutoencoderTiny` whose encoder is trained, or that of another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.training_utils import EMAModel

from . import config
from .crops import open_crops
from .device import autocast, device, fast, place
from .face_loss import FaceLoss
from .half_size import HalfSize, open_start, start_encoder
from .loop import Run, below, learning_rate, random_for


def build(settings: config.Config) -> AutoencoderTiny:
    """The network, not yet trained; it scales latents as the model that is continued."""
    ours = settings.autoencoder
    return AutoencoderTiny(
        encoder_block_out_channels=(ours.encoder_width,) * len(ours.encoder_blocks),
        decoder_block_out_channels=(ours.decoder_width,) * len(ours.decoder_blocks),
        num_encoder_blocks=ours.encoder_blocks,
        num_decoder_blocks=ours.decoder_blocks,
        latent_channels=ours.latent_channels,
        scaling_factor=open_start(settings.start).config.scaling_factor if settings.start else 1.0,
    )


def make_encoder(settings: config.Config, crops: Path, folder: Path) -> None:
    """Write the network before its training; its encoder is already final if it continues a model."""
    torch.manual_seed(settings.seed)
    net = build(settings)
    if settings.start:
        start_encoder(net.encoder, settings.start)
    net.save_pretrained(folder)


def train_autoencoder(settings: config.Config, crops: Path, start: Path, folder: Path) -> None:
    """Train phase by phase until all budgets are spent, then write the averaged network to `folder/final`.

    Each phase has a folder of its own, named by its number, with `final` of its own where the next one starts.
    """
    data = Pictures(settings, crops)
    for number, phase in enumerate(settings.autoencoder.phases, 1):
        own = folder / str(number)
        if not (own / "final").exists():
            own.mkdir(exist_ok=True)
            net = place(AutoencoderTiny.from_pretrained(start))
            _train_phase(settings, phase, net, data, own)
        start = own / "final"
    net = AutoencoderTiny.from_pretrained(start)
    if not settings.start:
        net.register_to_config(scaling_factor=round(1 / data.latent_deviation(place(net)), 4))
    net.save_pretrained(folder / "final")


def _train_phase(
    settings: config.Config, phase: config.Phase, net: AutoencoderTiny, data: Pictures, folder: Path
) -> None:
    ours = settings.autoencoder
    trained = net.decoder if settings.start else net
    weights = list(trained.parameters())
    net.requires_grad_(False)
    trained.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, phase.learning_rate, betas=(0.9, 0.99), fused=True)
    average = EMAModel(weights, decay=ours.ema)
    parts = {"net": net, "optimizer": optimizer, "average": average}
    run = Run(folder, parts, phase.minutes, phase.samples, phase.batch)
    average.to(device())
    loss_of = Loss(settings, phase, net)

    def update(number: int, progress: float) -> dict[str, float | torch.Tensor]:
        learning_rate(optimizer, phase.learning_rate, number, 100, progress)
        optimizer.zero_grad()
        random = random_for(settings.seed, number, device())
        loss, losses = loss_of(data.batch(phase, random), random)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        average.step(weights)
        return losses

    run.train(update)
    average.copy_to(weights)
    temporary = folder / "final.tmp"
    net.save_pretrained(temporary)
    temporary.replace(folder / "final")


class Pictures:
    """Batches of photos and styled pictures, which are kept on a GPU or read from disk on a CPU."""

    def __init__(self, settings: config.Config, crops: Path) -> None:
        data = open_crops(crops, "train")
        self.share, self.images = settings.autoencoder.styled_share, []
        for kind in ("images", "styled"):
            images = torch.from_numpy(data[kind])
            self.images.append(images.to(device()) if torch.cuda.is_available() else images)

    def batch(self, phase: config.Phase, random: torch.Generator) -> torch.Tensor:
        """Photos first, then styled pictures, half of all mirrored: (batch, 3, side, side) in [-1, 1]."""
        styled = round(self.share * phase.batch)
        counts = (phase.batch - styled, styled)
        images = torch.cat([of[below(len(of), n, random)] for of, n in zip(self.images, counts, strict=True)])
        images = images.to(device())
        flip = torch.rand(len(images), generator=random, device=device()) < 0.5
        images = torch.where(flip[:, None, None, None], images.flip(2), images)
        if phase.patch:
            corner = np.random.default_rng(random.initial_seed()).integers(images.shape[1] - phase.patch + 1, size=2)
            top, left = corner.tolist()  # drawn on the CPU, to avoid waiting for the device
            images = images[:, top : top + phase.patch, left : left + phase.patch]
        return to_tensor(images)

    @torch.no_grad()
    def latent_deviation(self, net: Any) -> float:
        """Standard deviation of the latents of 512 photos."""
        pixels = to_tensor(self.images[0][:512].to(net.device))
        return float(torch.cat([net.encode(part).latents for part in pixels.split(64)]).std())


class Loss:
    """L1, the face network's view of a part of the batch, and trained latents held near unit variance."""

    def __init__(self, settings: config.Config, phase: config.Phase, net: AutoencoderTiny) -> None:
        self.ours, self.phase = settings.autoencoder, phase
        self.fixed = settings.start is not None
        self.encode = fast(place(HalfSize(settings.start)) if settings.start else net.encoder)
        self.decode = fast(net.decoder)
        self.faces = round(phase.face_share * phase.batch)
        if self.faces:
            self.face_loss = fast(place(FaceLoss(settings.crops.template, settings.crops.size)))

    def __call__(
        self, real: torch.Tensor, random: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        """The loss, a scalar, and its parts for the log, of pictures (batch, 3, side, side) in [-1, 1]."""
        with autocast():
            latents = self.encode(real)
            noise = torch.randn(latents.shape, generator=random, device=device())
            made = self.decode(latents + noise * self.ours.latent_noise)
        loss = (made.float() - real).abs().mean()
        losses = {"l1": loss.detach()}
        if self.faces:
            with autocast():
                faces = [images[: self.faces] / 2 + 0.5 for images in (made, real)]
                face = self.face_loss(*faces).float().mean()
            loss = loss + self.phase.face_weight * face
            losses["face"] = face.detach()
        if not self.fixed:
            spread = _unit_variance(latents.float())
            loss = loss + 0.01 * spread
            losses["spread"] = spread.detach()
        return loss, losses


def to_tensor(images: torch.Tensor) -> torch.Tensor:
    """(n, h, w, 3) uint8 → (n, 3, h, w) in [-1, 1], channels last."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def _unit_variance(latents: torch.Tensor) -> torch.Tensor:
    """How far each channel's mean and deviation are from 0 and 1, squared: diffusion starts from unit noise."""
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return (mean.square() + (deviation - 1).square()).mean()
