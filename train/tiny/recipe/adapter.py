"""Stages 7 to 9, and 11: the small model's identity adapter, by denoising and by reward; and its IdentityNet."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch
from accelerate import Accelerator
from diffusers import StableDiffusionPipeline

from idgen import IdentityAdapter
from idgen.faces.opencv import YuNetDetector
from idgen.losses import FaceDecoder, FaceEmbedder, Term, make_losses
from idgen.rewards import IdentityReward, WeightedRewards
from idgen.training.base import BaseModel
from idgen.training.config import LoopConfig, LossConfig, OptimizerConfig
from idgen.training.denoiser import IdentityDenoiser
from idgen.training.loop import Loop
from idgen.training.methods import METHODS
from idgen.training.reward_backprop import RewardStep
from idgen.training.step import TrainingStep
from idgen.training.trainable import new_identity_net

from . import config
from .device import device, place
from .joint import train_joint
from .package import build_pipeline
from .people import CachedPeople


def train_base_with_adapter(settings: config.Config, folders: dict[str, Path]) -> None:
    """The last training of the base, and the first of the adapter."""
    base = place_base(build_pipeline(folders["autoencoder"], folders["base"]))
    train_joint(settings, base, open_people(settings, folders, settings.joint.batch), folders["joint"])


def train_adapter(settings: config.Config, folders: dict[str, Path]) -> None:
    """Denoise, with all losses that the settings weigh."""
    ours = settings.adapter
    denoise(settings, folders, folders["adapter"], ours.losses, ours.steps)


def train_reward(settings: config.Config, folders: dict[str, Path]) -> None:
    """Go on with the identity reward, with the base model as anchor."""
    ours = settings.reward
    cv2.setNumThreads(1)  # as in stage 1
    base = open_base(folders)
    adapter = IdentityAdapter.from_pretrained(folders["adapter"])
    adapter.attach(base.unet)
    people = open_people(settings, folders, settings.adapter.batch)
    embedder = open_embedder()
    step = RewardStep(
        base,
        adapter,
        WeightedRewards({"identity": Term(IdentityReward(embedder=embedder), ours.weight, None, "face_found")}),
        METHODS[ours.method](
            steps=ours.rollout,
            last=ours.last,
            guidance_scale=ours.guidance_scale,
            preservation=ours.preservation,
            denoising=ours.denoising,
        ),
        embedder=embedder,
        decoder=FaceDecoder(vae=base.pipeline.vae, margin=4),
        detector=YuNetDetector(settings.paths.yunet),  # dlib's would take most of the update's time
    )
    run(settings, step, people, folders["reward"], ours.steps, ours.learning_rate)


def average_stages(settings: config.Config, folders: dict[str, Path]) -> None:
    """The adapter that is packaged: between the weights before and after the reward."""
    average(folders["adapter"], folders["reward"], settings.reward.share, folders["averaged"])


def train_identity_net(settings: config.Config, folders: dict[str, Path]) -> None:
    """The IdentityNet of the finished adapter, on faces that lie anywhere."""
    base = open_base(folders)
    adapter = IdentityAdapter.from_pretrained(folders["averaged"]).requires_grad_(False)
    adapter.attach(base.unet)
    people = open_people(settings, {**folders, "latents": folders["poses"]}, settings.adapter.batch)
    torch.manual_seed(settings.seed)
    step = IdentityDenoiser(
        base,
        adapter,
        make_losses(LossConfig.only(), base.parametrisation),
        identity_net=place(new_identity_net(base).train()),
    )
    run(
        settings,
        step,
        people,
        folders["identity_net"],
        settings.identity_net.steps,
        settings.identity_net.learning_rate,
    )


def joint_adapter(folders: dict[str, Path], rank: int) -> IdentityAdapter:
    """The one that was trained with the base, with a LoRA on the UNet's attention, which changes nothing yet: beside a
    small frozen UNet, branches alone soon have nothing left to learn with."""
    adapter = IdentityAdapter.from_pretrained(folders["joint"] / "adapter")
    wide = IdentityAdapter.from_config({**adapter.config, "lora_rank": rank})
    wide.load_state_dict(adapter.state_dict() | wide.loras.state_dict(prefix="loras."))
    return wide


def denoise(settings: config.Config, folders: dict[str, Path], folder: Path, losses: LossConfig, steps: int) -> None:
    """Stage one, from the adapter that was trained with the base."""
    ours = settings.adapter
    base = open_base(folders)
    adapter = joint_adapter(folders, ours.lora_rank)
    adapter.attach(base.unet)
    people = open_people(settings, folders, ours.batch)
    step = IdentityDenoiser(
        base,
        adapter,
        make_losses(losses, base.parametrisation),
        embedder=open_embedder(),
        decoder=FaceDecoder(vae=base.pipeline.vae, margin=4),
        bank=people.bank,
    )
    run(settings, step, people, folder, steps, ours.learning_rate)


def average(before: Path, after: Path, share: float, folder: Path) -> None:
    """Weights between those of two adapters, `share` of the way: the reward gives likeness and takes styles, and
    between the two lies an adapter with the styles of the one and most of the likeness of the other (Wortsman et al.,
    arXiv 2109.01903)."""
    adapter, other = (IdentityAdapter.from_pretrained(start) for start in (before, after))
    weights = other.state_dict()
    adapter.load_state_dict({name: weight.lerp(weights[name], share) for name, weight in adapter.state_dict().items()})
    adapter.save_pretrained(folder)


def open_embedder() -> FaceEmbedder:
    """The default face encoder, on the device."""
    embedder = FaceEmbedder.dlib()
    place(embedder.encoder)
    return embedder


def open_base(folders: dict[str, Path]) -> BaseModel:
    """The small model as trained so far, frozen."""
    return place_base(build_pipeline(folders["autoencoder"], folders["base"], folders["joint"]))


def place_base(pipeline: StableDiffusionPipeline) -> BaseModel:
    """On the device, in the order of memory that its convolutions are fast in."""
    base = BaseModel(pipeline, torch.float32, device())
    place(base.unet)
    place(base.pipeline.vae)
    return base


def open_people(settings: config.Config, folders: dict[str, Path], size: int) -> CachedPeople:
    """Batches of so many samples."""
    return CachedPeople(settings, folders, size)


def run(
    settings: config.Config,
    step: TrainingStep,
    people: CachedPeople,
    folder: Path,
    steps: int,
    rate: float,
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
    done = Loop(step, people, folder, loop, optimizer, Accelerator(cpu=not torch.cuda.is_available())).run()
    if done < steps:  # told to stop: the stage is not done
        raise SystemExit(f"Stopped after {done} of {steps} updates; the same command goes on from there.")
