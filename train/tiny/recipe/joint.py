"""Stage 6: the base learns that prompts can mean a person, as large models know the people in their captions.

UNet and adapter train together by denoising alone. Afterwards the base is frozen for good, and every adapter, the one
that was trained with it too, stands outside of it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.training_utils import EMAModel

from idgen import IdentityAdapter
from idgen.adapter.projections import MLPProjection
from idgen.faces import DlibEncoder
from idgen.losses import make_losses
from idgen.training.base import BaseModel
from idgen.training.config import LossConfig
from idgen.training.denoiser import IdentityDenoiser

from . import config
from .device import device
from .loop import Run, learning_rate, random_for
from .people import CachedPeople


def train_joint(settings: config.Config, base: BaseModel, people: CachedPeople, folder: Path) -> None:
    """Train until the budget is spent, then write `unet/` and `adapter/`, the averages."""
    ours = settings.joint
    torch.manual_seed(settings.seed)
    adapter = new_adapter(settings, base, people).to(device())
    unet = base.unet.requires_grad_(True).train()
    adapter.attach(unet)
    step = IdentityDenoiser(base, adapter, make_losses(LossConfig.only(snr_gamma=ours.min_snr), base.parametrisation))
    weights = [*unet.parameters(), *adapter.parameters()]
    optimizer = torch.optim.AdamW(weights, ours.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    average = EMAModel(weights, decay=ours.ema)
    parts = {"unet": unet, "adapter": adapter, "optimizer": optimizer, "average": average}
    run = Run(folder, parts, ours.minutes, ours.samples, ours.batch)
    average.to(device())

    def update(number: int, progress: float) -> dict[str, float | torch.Tensor]:
        learning_rate(optimizer, ours.learning_rate, number, 100, progress)
        optimizer.zero_grad()
        with step:
            weighted = step(people.batch(number).to(device()), random_for(settings.seed + 4, number))
            weighted.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        average.step(weights)
        return {"loss": weighted.total.detach(), "norm": norm}

    run.train(update)
    average.copy_to(weights)
    adapter.detach()
    unet.save_pretrained(folder / "unet")
    adapter.save_pretrained(folder / "adapter")


def new_adapter(settings: config.Config, base: BaseModel, people: CachedPeople) -> IdentityAdapter:
    """An adapter that has not learned anything yet, for the default encoder."""
    ours = settings.adapter
    adapter = IdentityAdapter.from_unet(
        base.unet,
        encoder=DlibEncoder.name,
        embedding_dim=DlibEncoder.dim,
        normalised=True,
        num_tokens=ours.num_tokens,
        projection={"type": "mlp", "hidden_dim": ours.hidden_dim},
        text_encoders=base.text_encoders,
        num_words=ours.num_words,
    )
    assert isinstance(adapter.to_tokens, MLPProjection)
    adapter.to_tokens.standardise_input(torch.nn.functional.normalize(people.embeds, dim=-1))
    return adapter
