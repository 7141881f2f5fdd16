"""Updates of the adapter, its base and its IdentityNet by denoising."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from idgen import IdentityNet
from idgen.losses import base_preservation_loss, identity_loss
from idgen.losses.contrastive import info_nce
from idgen.losses.settings import DEFAULTS
from idgen.training.faces import face_mask

from ..device import autocast, device
from .captured import Losses, Trained
from .latent_faces import LatentFaces
from .person import Person
from .posed import Posed
from .resident import CAPTIONS, Drawn, Resident

UNTIL = 0.85
"""Share of the noise schedule up to which faces are compared in a prediction."""


def joint_update(data: Resident, model: Person, trained: Trained, batch: int) -> Callable[[], Losses]:
    """Base and adapter together, by denoising. In a quarter of the samples only the words mean the person."""

    def update() -> Losses:
        drawn = data.batch(batch, 0.45)
        noise, timesteps = torch.randn_like(drawn.latents), draw_timesteps(model, batch)
        u = torch.rand(3, batch, device=device())
        tokens = torch.where((u[0] < 0.1)[:, None], data.nothing, drawn.tokens)
        identity = drawn.identity * ((u[1] > 0.1) & (u[0] > 0.05))[:, None]
        noisy = model.noised(drawn.latents, noise, timesteps)
        with autocast():
            found = model(noisy, timesteps, tokens, identity, (u[2] > 0.25).float()).float()
        loss = (found - model.v(drawn.latents, noise, timesteps)).square().mean()
        return {"v": loss.detach(), "norm": trained.step(loss)}

    return update


def adapter_update(
    data: Resident, model: Person, trained: Trained, faces: LatentFaces, batch: int
) -> Callable[[], Losses]:
    """The adapter beside the frozen base: denoising, identity, contrastive and preservation losses with the package's
    weights."""

    def update() -> Losses:
        drawn = data.batch(batch, 0.4)
        noise, timesteps = torch.randn_like(drawn.latents), draw_timesteps(model, batch)
        u = torch.rand(2, batch, device=device())
        tokens = torch.where((u[0] < 0.1)[:, None], data.nothing, drawn.tokens)
        known = u[1] > 0.1
        noisy = model.noised(drawn.latents, noise, timesteps)
        with autocast():
            found = model(noisy, timesteps, tokens, drawn.identity * known[:, None]).float()
            base = model.without(noisy, timesteps, tokens).float()
        x0 = model.x0(found, noisy, timesteps)
        counts = (known & drawn.plain & (timesteps < UNTIL * len(model.alphas))).float()
        made = faces.embed(x0, drawn.points)
        snr = model.alphas[timesteps] / (1 - model.alphas[timesteps])
        error = (found - model.v(drawn.latents, noise, timesteps)).square().mean((1, 2, 3))
        denoising = snr.clamp(max=5) / (snr + 1) * error  # min-SNR for v
        near = (counts * identity_loss(made, drawn.target)).mean()
        far = (counts * contrastive(data, made, drawn)).mean()
        kept = base_preservation_loss(found, base, mask_of(drawn.points, found)).mean()
        loss = denoising.mean() + 2 * near + 0.01 * far + 0.1 * kept
        told = {"denoising": denoising.mean(), "identity": near / counts.mean(), "contrastive": far, "kept": kept}
        return {**{name: value.detach() for name, value in told.items()}, "norm": trained.step(loss)}

    return update


def contrastive(data: Resident, made: torch.Tensor, drawn: Drawn, negatives: int = 1024) -> torch.Tensor:
    """InfoNCE against the photos of other people, (batch,)."""
    others = (torch.rand(negatives, device=device()) * len(data.embeds)).long()
    made = F.normalize(made, dim=1)
    positive = (made * F.normalize(drawn.target, dim=1)).sum(1, keepdim=True)
    negative = made @ F.normalize(data.embeds[others], dim=1).mT
    negative = negative.masked_fill(data.person[others] == drawn.person[:, None], -torch.inf)
    return info_nce(positive / DEFAULTS.temperature, negative / DEFAULTS.temperature)


def net_update(
    data: Resident, poses: Posed, model: Person, net: IdentityNet, trained: Trained, batch: int
) -> Callable[[], Losses]:
    """The IdentityNet, by denoising of faces in random poses."""

    def update() -> Losses:
        u = torch.rand(3, batch, device=device())
        rows = (u[0] * len(poses.photo)).long()
        photo, latents = poses.photo[rows], poses.latents[rows]
        noise, timesteps = torch.randn_like(latents), draw_timesteps(model, batch)
        tokens = torch.where((u[1] < 0.1)[:, None], data.nothing, data.tokens[photo, (u[2] * CAPTIONS).long()].long())
        noisy = model.noised(latents, noise, timesteps)
        drawn = poses.drawn[rows].permute(0, 3, 1, 2).float() / 255
        with autocast():
            person = model.adapter.encode(F.normalize(data.embeds[photo], dim=1) * (u[1] > 0.05)[:, None])
            text = model.read(tokens, person.words[0])
            with model.adapter.activate([person], batch), net.activate([person], batch):
                down, mid = net(noisy, timesteps, text, drawn, return_dict=False)
                found = model.unet(
                    noisy,
                    timesteps,
                    text,
                    down_block_additional_residuals=tuple(down),
                    mid_block_additional_residual=mid,
                ).sample.float()
        loss = (found - model.v(latents, noise, timesteps)).square().mean()
        return {"v": loss.detach(), "norm": trained.step(loss)}

    return update


def draw_timesteps(model: Person, count: int) -> torch.Tensor:
    """Uniform timesteps, (count,)."""
    return (torch.rand(count, device=device()) * len(model.alphas)).long()


def mask_of(points: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """1 in the box around each face, at the size of latents `like`: (batch, 1, side, side)."""
    side = like.shape[-1]
    return face_mask(points / 8, torch.ones(len(points), device=points.device), side, side)
