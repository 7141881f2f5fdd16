"""A configuration → a run: the base model, the adapter, the shards, the step and the loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import wraps
from typing import Any

import torch
from accelerate import Accelerator

from ..adapter import RandomFusion
from ..data.bank import IdentityBank
from ..data.cache import framing_for
from ..data.columns import column_url
from ..data.dataset import PairedIdentityDataset, Pairing
from ..data.loader import PairedLoader
from ..data.makers import LatentMaker, TextMaker
from ..data.statistics import statistics_for
from ..data.storage import exists
from ..errors import TrainingError
from ..losses import FaceEmbedder, LossSettings
from .accelerator import make_accelerator
from .base import BaseModel
from .card import describe_training
from .config import DenoisingConfig, RewardConfig
from .denoiser import IdentityDenoiser
from .dry_run import dry_run
from .faces import open_decoder, open_detector
from .folder import check_start, locked, on_main
from .loop import Loop
from .objectives import fitted
from .parts import Parts, make_parts
from .prior import embed_prior
from .prompts import check_captions, check_prompts
from .reward_steps import make_reward_step
from .rollout import DistilledLoRA, Rollout, ShortRollout, make_scheduler
from .shard_batches import ShardBatches
from .step import TrainingStep
from .terms import FACE_INPUT, make_terms
from .trackers import check_tracker, start_trackers
from .watch import make_watch


def _in_its_folder(train: Callable[[Any], int]) -> Callable[[Any], int]:
    """Let a run hold its folder from its first look at it to its card; a dry run writes nothing."""

    @wraps(train)
    def run(config: Any) -> int:
        with nullcontext() if config.loop.dry_run else locked(config.output_dir):
            return train(config)

    return run


@_in_its_folder
def train_denoising(config: DenoisingConfig) -> int:
    """Run stage one to its end, or to a signal; returns the number of updates so far.

    Raises:
        TrainingError: The configuration does not fit together, the folder holds another run or is used by one, or the
            loss is not finite for too long.
        DataError: The shards cannot be read.
        StatisticsError: Settings of a loss are left to the face encoder, of which too little is known.
    """
    if config.losses.compares:
        config = replace(config, losses=fitted(config.losses, _fitting(config)))
    accelerator, base = _open(config)
    losses, faces, device = config.losses, config.faces, accelerator.device
    terms = make_terms(losses, base.parametrisation, gated=not faces.rollout_steps)
    reads = terms.reads()
    batches = open_batches(config, base, accelerator, losses.negatives if "negatives" in reads else 0)
    parts = make_parts(config, base, batches)
    sees = FACE_INPUT in reads
    detects = faces.landmarks == "prediction" or faces.rollout_steps
    step = IdentityDenoiser(
        base,
        **parts._asdict(),
        losses=terms,
        embedder=_embedder(batches, device) if sees else None,
        decoder=open_decoder(faces, base) if sees else None,
        detector=open_detector(faces.detector) if sees and detects else None,
        x0_steps=faces.steps,
        rollout=_short_rollout(config, base, parts) if sees and faces.rollout_steps else None,
        bank=batches.bank if batches.negatives is not None else None,
        prior=embed_prior(losses.prior_dir) if losses.triplet and losses.prior_dir else None,
        edits=losses.edits,
        noise_offset=losses.noise_offset,
        fusion=RandomFusion() if config.adapter.random_fusion else None,
        gather=accelerator.gather,  # pyright: ignore[reportArgumentType]
    )
    return _run(config, step, batches, accelerator, base)


@_in_its_folder
def train_reward(config: RewardConfig) -> int:
    """Run stage two to its end, or to a signal; returns and raises as `train_denoising`."""
    if config.id_adapter is None and not config.unet_lora_rank:
        raise TrainingError(
            "Nothing would be trained: give id_adapter, the adapter of stage one, or unet_lora_rank, a LoRA alone."
        )
    if config.rollout.hinge is None and config.rollout.identity_weight:
        config = replace(config, rollout=fitted(config.rollout, _fitting(config)))
    accelerator, base = _open(config)
    batches = open_batches(config, base, accelerator)
    parts = make_parts(config, base, batches)
    step = make_reward_step(config.rollout, base, parts, _embedder(batches, accelerator.device), config.loop)
    return _run(config, step, batches, accelerator, base)


def open_batches(
    config: DenoisingConfig | RewardConfig, base: BaseModel, accelerator: Accelerator, negatives: int = 0
) -> ShardBatches:
    """The training split of the shards, with the latents and texts that are cached.

    Args:
        config: Of the run.
        base: Its VAE and text encoders encode what is not cached.
        accelerator: Says which process this is.
        negatives: Other people for each sample; 0 for none.

    Raises:
        DataError: The shards cannot be read, or what is cached is another model's.
    """
    data, name = config.data, config.base
    framing = framing_for(name, data.resolution)
    cached, said = (exists(column_url(config.train_data_dir, "000000", column)) for column in ("latents", "text"))
    cached = cached and not data.poses
    latents = LatentMaker(base.pipeline.vae, framing, network=base.keys["vae"])
    text = TextMaker(None, None, network=base.keys["text_encoder"]) if len(base.text_encoders) == 1 else None
    dataset = PairedIdentityDataset(
        config.train_data_dir,
        framing=framing,
        latents=latents.key() if cached else None,
        text=text.key() if said and text is not None else None,
        pairing=Pairing(
            paired_ratio=data.paired_ratio,
            references=data.references,
            drop_text=data.drop_text,
            drop_identity=data.drop_identity,
            drop_both=data.drop_both,
            component_dropout=data.component_dropout,
            flip=data.flip,
            poses=data.poses,
        ),
        seed=config.loop.seed,
    )
    loader = PairedLoader(
        dataset,
        config.loop.train_batch_size,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        workers=data.dataloader_num_workers,
    )
    bank = IdentityBank(config.train_data_dir, count=negatives, seed=config.loop.seed) if negatives else None
    return ShardBatches(loader, None if cached else base.pipeline.vae, bank, base.encode)


def _fitting(config: DenoisingConfig | RewardConfig) -> LossSettings:
    """Temperatures, margins and thresholds that fit the encoder of the shards."""
    return LossSettings.fitting(statistics_for(config.train_data_dir))


def _open(config: DenoisingConfig | RewardConfig) -> tuple[Accelerator, BaseModel]:
    loop = config.loop
    check_tracker(loop.report_to)
    accelerator = make_accelerator(loop, config.output_dir)
    if not loop.dry_run:
        on_main(check_start, config.output_dir, loop.resume_from_checkpoint, _settings(config, accelerator))
    torch.manual_seed(loop.seed)
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[accelerator.mixed_precision]
    base = BaseModel.open(config.base, dtype, accelerator.device)
    if loop.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    if not loop.dry_run:
        start_trackers(accelerator, asdict(config))
    return accelerator, base


def _settings(config: DenoisingConfig | RewardConfig, accelerator: Accelerator) -> dict[str, Any]:
    """What defines a run, as far as its configuration says it."""
    settings = asdict(config)
    settings["loop"]["mixed_precision"] = accelerator.mixed_precision
    return {"stage": "denoise" if isinstance(config, DenoisingConfig) else "reward", **settings}


def _embedder(batches: ShardBatches, device: torch.device) -> FaceEmbedder:
    """The encoder that made the shards, as losses and rewards use it."""
    embedder, found = FaceEmbedder.dlib(), batches.loader.dataset.manifest.encoder
    if found != embedder.name:
        raise TrainingError(
            f"The shards hold embeddings of '{found}'; losses and rewards on faces compare with those of "
            f"'{embedder.name}'. Without these losses: --losses.identity 0 --losses.contrastive 0."
        )
    embedder.encoder.to(device)
    return embedder


def _short_rollout(config: DenoisingConfig, base: BaseModel, parts: Parts) -> ShortRollout:
    faces = config.faces
    if faces.distilled and (config.loop.gradient_checkpointing or parts.lora is not None):
        raise TrainingError(
            "A distilled LoRA acts in the rollout alone: it goes neither with gradient_checkpointing, which runs the "
            "layers again after it, nor beside a LoRA that is trained."
        )
    scheduler = make_scheduler(faces.scheduler, base.pipeline.scheduler)
    return ShortRollout(
        rollout=Rollout(scheduler=scheduler, method="draft", steps=faces.rollout_steps, last=faces.rollout_steps),
        distilled=DistilledLoRA(base.pipeline, faces.distilled) if faces.distilled else None,
        prompt=faces.prompt,
    )


def _run(
    config: DenoisingConfig | RewardConfig,
    step: TrainingStep,
    batches: ShardBatches,
    accelerator: Accelerator,
    base: BaseModel,
) -> int:
    validate, guard = make_watch(config, base, step.adapter, accelerator)
    if step.adapter is not None:
        on_main(check_captions, batches.loader.dataset, base, step.adapter)
        if validate is not None:
            check_prompts(config.validation.validation_prompts, "validation_prompts", base, step.adapter)
    found = {"train_data_dir.photos": batches.key(), "base.weights": base.keys}
    loop = Loop(
        step,
        batches,
        config.output_dir,
        config.loop,
        config.optimizer,
        accelerator,
        validate=validate,
        guard=guard,
        run_settings={**_settings(config, accelerator), **found},
    )
    if config.loop.dry_run:
        dry_run(loop)
        return 0
    done = loop.run()
    if accelerator.is_main_process and done:
        describe_training(config.output_dir, batches.loader.dataset.manifest, asdict(config), done)
    accelerator.end_training()
    return done
