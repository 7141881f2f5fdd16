"""Stage 2: `AutoencoderTiny`, pictures ↔ latents a quarter of their side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from diffusers.training_utils import EMAModel

from . import config
from .crops import template
from .device import autocast, device, fast, place
from .face_loss import FaceLoss
from .loop import Run, learning_rate, random_for


def build(settings: config.Autoencoder) -> AutoencoderTiny:
    """The network, not yet trained."""
    return AutoencoderTiny(
        encoder_block_out_channels=(settings.width,) * 3,
        decoder_block_out_channels=(settings.width,) * 3,
        num_encoder_blocks=settings.encoder_blocks,
        num_decoder_blocks=settings.decoder_blocks,
        latent_channels=settings.latent_channels,
    )


def train_autoencoder(settings: config.Config, crops: Path, folder: Path) -> None:
    """Train until the budget is spent, then write the averaged network to `folder/final`."""
    torch.manual_seed(settings.seed)
    ours = settings.autoencoder
    net = place(build(ours))
    optimizer = torch.optim.AdamW(net.parameters(), ours.learning_rate, betas=(0.9, 0.99), fused=True)
    average = EMAModel(net.parameters(), decay=ours.ema)
    run = Run(folder, {"net": net, "optimizer": optimizer, "average": average}, ours.minutes, ours.samples, ours.batch)
    average.to(device())
    step = _Step(settings, net, crops)

    def update(number: int, progress: float) -> dict[str, float | torch.Tensor]:
        learning_rate(optimizer, ours.learning_rate, number, 100, progress)
        optimizer.zero_grad()
        loss, parts = step(number)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        average.step(net.parameters())
        return parts

    run.train(update)
    average.copy_to(net.parameters())
    net.register_to_config(scaling_factor=round(1 / step.latent_deviation(), 4))
    net.save_pretrained(folder / "final")


class _Step:
    """Loss of one batch: L1, the face network's view of a part of it, and latents held near unit variance."""

    def __init__(self, settings: config.Config, net: AutoencoderTiny, crops: Path) -> None:
        self.ours, self.seed = settings.autoencoder, settings.seed
        with np.load(crops / "train.npz") as arrays:
            self.photos, self.styled = (torch.from_numpy(arrays[k]).to(device()) for k in ("images", "styled"))
        self.net = net
        self.encode, self.decode = fast(net.encoder), fast(net.decoder)
        self.face_loss = fast(place(FaceLoss(template(settings.crops), settings.crops.size)))

    def __call__(self, number: int) -> tuple[torch.Tensor, dict[str, float | torch.Tensor]]:
        random = random_for(self.seed, number)
        real = self.batch(random)
        with autocast():
            latents = self.encode(real)
            noise = torch.randn(latents.shape, generator=random).to(device()) * self.ours.latent_noise
            made = self.decode(latents + noise)
        l1 = (made.float() - real).abs().mean()
        faces = round(self.ours.face_share * self.ours.batch)
        with autocast():
            face = self.face_loss(made[:faces] / 2 + 0.5, real[:faces] / 2 + 0.5).float().mean()
        spread = _unit_variance(latents.float())
        loss = l1 + self.ours.face_weight * face + 0.01 * spread
        return loss, {"l1": l1.detach(), "face": face.detach(), "spread": spread.detach()}

    def batch(self, random: torch.Generator) -> torch.Tensor:
        """Photos first, then styled pictures, half of all mirrored: (batch, 3, side, side) in [-1, 1]."""
        styled = round(self.ours.styled_share * self.ours.batch)
        counts = ((self.photos, self.ours.batch - styled), (self.styled, styled))
        rows = [images[torch.randint(len(images), (n,), generator=random).to(device())] for images, n in counts]
        images = torch.cat(rows)
        flip = (torch.rand(len(images), generator=random) < 0.5).to(device())
        return to_tensor(torch.where(flip[:, None, None, None], images.flip(2), images))

    @torch.no_grad()
    def latent_deviation(self) -> float:
        """Standard deviation of the latents of 512 photos."""
        return float(self.net.encode(to_tensor(self.photos[:512])).latents.std())


def to_tensor(images: torch.Tensor) -> torch.Tensor:
    """(n, h, w, 3) uint8 → (n, 3, h, w) in [-1, 1], channels last."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def _unit_variance(latents: torch.Tensor) -> torch.Tensor:
    """How far each channel's mean and deviation are from 0 and 1, squared: diffusion starts from unit noise."""
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return (mean.square() + (deviation - 1).square()).mean()
