"""Runs on tiny random components: a base model, endless batches of random people, and a loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from idgen.adapter import RandomFusion
from idgen.losses import FaceDecoder, FaceEmbedder, make_losses
from idgen.losses.style import Styles, fit_styles
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.config import LoopConfig, LossConfig, OptimizerConfig
from idgen.training.denoiser import IdentityDenoiser
from idgen.training.distributed import make_accelerator
from idgen.training.loop import Loop
from tests.components import SIDE, make_adapter, make_pipeline, seeded

LATENT = SIDE // 2
POINTS = torch.tensor([[10.0, 12], [21, 12], [15, 17], [11, 22], [20, 22]])


def centres() -> torch.Tensor:
    """(64, 128), random mean embeddings of the people in the first batches."""
    return torch.randn(64, 128, generator=seeded(7))


def groups() -> torch.Tensor:
    """(64,), those people's groups: none, the first or the second."""
    return torch.arange(64) % 3 - 1


def styles() -> Styles:
    """Two styles of random latents."""
    return fit_styles([torch.randn(3, 4, LATENT, LATENT, generator=seeded(seed)) for seed in (10, 11)])


class RandomPeople:
    """Batches determined by their number; processes take turns."""

    def __init__(self, size: int, rank: int = 0, world: int = 1, prompt: str = "a face", xl: bool = False) -> None:
        self.size, self.rank, self.world, self.prompt, self.xl = size, rank, world, prompt, xl
        self.number = 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            number, self.number = self.number, self.number + self.world
            yield self.make(number + self.rank)

    def make(self, number: int) -> Batch:
        random = seeded(number)
        return Batch(
            latents=torch.randn(self.size, 4, LATENT, LATENT, generator=random),
            prompts=(self.prompt,) * self.size,
            id_embeds=torch.randn(self.size, 8, generator=random),
            encoder="test",
            target_embeds=torch.randn(self.size, 128, generator=random),
            landmarks=POINTS.expand(self.size, -1, -1).clone(),
            face_found=torch.arange(self.size) != 1,
            has_identity=torch.ones(self.size, dtype=torch.bool),
            persons=number * self.size + torch.arange(self.size),
            time_ids=torch.tensor([SIDE, SIDE, 0, 0, SIDE, SIDE]).expand(self.size, -1) if self.xl else None,
        )

    def state_dict(self) -> dict[str, Any]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.number = state["number"]


def make_step(
    family: str = "sd",
    losses: LossConfig | None = None,
    fusion: bool = False,
    words: int = 0,
    unet: Mapping[str, Any] | None = None,
    adapter: Mapping[str, Any] | None = None,
    older: bool = False,
    **options: Any,
) -> Any:
    losses = losses or LossConfig.only()
    base = BaseModel(make_pipeline(family, **(unet or {})), torch.float32, torch.device("cpu"))
    named: dict[str, Any] = {"num_words": words, "text_encoders": base.text_encoders} if words else {}
    made = make_adapter(base.unet, **named, **(adapter or {}))
    made.attach(base.unet)
    if older:
        options["older"] = make_adapter(base.unet, seed=5).requires_grad_(False)
        options["older"].attach(base.unet)
    terms = make_losses(losses, base.parametrisation, embedding_dim=128, centres=centres, groups=groups, styles=styles)
    return IdentityDenoiser(
        base,
        made,
        terms,
        embedder=FaceEmbedder.dlib(),
        decoder=FaceDecoder(vae=base.pipeline.vae, margin=2),
        fusion=RandomFusion() if fusion else None,
        group_means=torch.randn(3, made.config["embedding_dim"], generator=seeded(9)),
        **options,
    )


def make_loop(
    folder: Path, *, steps: int = 6, losses: LossConfig | None = None, ema: float = 0.9, **loop: Any
) -> Loop:
    config = LoopConfig(**{"max_train_steps": steps, "checkpointing_steps": 2, "train_batch_size": 2, **loop})
    optimizer = OptimizerConfig(learning_rate=1e-2, lr_warmup_steps=2, lr_scheduler="cosine", ema_decay=ema)
    accelerator = make_accelerator(config, folder)
    return Loop(make_step(losses=losses), RandomPeople(2), folder, config, optimizer, accelerator)


def run(step: Any, batch: Batch, backward: bool = True) -> Any:
    with step:
        found = step(batch, seeded(1))
        if backward:
            found.total.backward()
    return found
