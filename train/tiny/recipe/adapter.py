"""Stage 7: the small model's identity adapter, by denoising and then by reward."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator

from idgen import IdentityAdapter
from idgen.faces import DlibDetector
from idgen.losses import FaceDecoder, FaceEmbedder, Term
from idgen.rewards import IdentityReward, WeightedRewards
from idgen.training.base import BaseModel
from idgen.training.config import LoopConfig, OptimizerConfig
from idgen.training.denoiser import IdentityDenoiser
from idgen.training.loop import Loop
from idgen.training.rewarder import RewardStep
from idgen.training.rollout import Rollout
from idgen.training.terms import make_terms

from . import config
from .joint import train_joint
from .package import build_pipeline
from .people import CachedPeople


def train_base_with_adapter(settings: config.Config, folders: dict[str, Path]) -> None:
    """The last training of the base, and the first of the adapter."""
    pipeline = build_pipeline(settings, folders["autoencoder"] / "final", folders["base"])
    base = BaseModel(pipeline, torch.float32, torch.device("cpu"))
    train_joint(settings, base, open_people(settings, folders, settings.joint.batch), folders["joint"])


def train_adapter(settings: config.Config, folders: dict[str, Path]) -> None:
    """Denoise, with the losses that the settings weigh."""
    ours = settings.adapter
    base = open_base(settings, folders)
    adapter = IdentityAdapter.from_pretrained(folders["joint"] / "adapter")
    adapter.attach(base.unet)
    people = open_people(settings, folders, ours.batch)
    step = IdentityDenoiser(
        base,
        adapter,
        make_terms(ours.losses, base.parametrisation),
        embedder=FaceEmbedder.dlib(),
        decoder=FaceDecoder(vae=base.pipeline.vae, margin=4),
        bank=people.bank,
    )
    run(settings, step, people, folders["adapter"], ours.steps, ours.learning_rate)


def train_reward(settings: config.Config, folders: dict[str, Path]) -> None:
    """Go on with the identity reward, and the base model as anchor."""
    ours = settings.adapter
    base = open_base(settings, folders)
    adapter = IdentityAdapter.from_pretrained(folders["adapter"])
    adapter.attach(base.unet)
    people = open_people(settings, folders, ours.batch)
    embedder = FaceEmbedder.dlib()
    step = RewardStep(
        base,
        adapter,
        Rollout(scheduler=base.pipeline.scheduler, method="refl", steps=ours.reward_rollout, last=ours.reward_last),
        WeightedRewards({"identity": Term(IdentityReward(embedder=embedder), ours.reward_weight, None, "face_found")}),
        embedder=embedder,
        decoder=FaceDecoder(vae=base.pipeline.vae, margin=4),
        detector=DlibDetector(),
        preservation=ours.reward_preservation,
    )
    run(settings, step, people, folders["reward"], ours.reward_steps, ours.reward_learning_rate)


def open_base(settings: config.Config, folders: dict[str, Path]) -> BaseModel:
    """The small model as trained so far, frozen."""
    pipeline = build_pipeline(settings, folders["autoencoder"] / "final", folders["base"], folders["joint"])
    return BaseModel(pipeline, torch.float32, torch.device("cpu"))


def open_people(settings: config.Config, folders: dict[str, Path], size: int) -> CachedPeople:
    """Batches of so many samples."""
    return CachedPeople(settings, folders["crops"], folders["latents"], folders["embeddings"], size)


def run(
    settings: config.Config, step: torch.nn.Module, people: CachedPeople, folder: Path, steps: int, rate: float
) -> None:
    """One run of the loop; goes on where it was cut."""
    loop = LoopConfig(
        max_train_steps=steps,
        train_batch_size=settings.adapter.batch,
        checkpointing_steps=250,
        resume_from_checkpoint="latest",
        seed=settings.seed,
    )
    optimizer = OptimizerConfig(
        learning_rate=rate, lr_scheduler="cosine", lr_warmup_steps=50, ema_decay=settings.adapter.ema
    )
    Loop(step, people, folder, loop, optimizer, Accelerator(cpu=not torch.cuda.is_available())).run()
