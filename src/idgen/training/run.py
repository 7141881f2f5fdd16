"""A configuration -> a run: open the base model and the shards, make the modules, the step and the loop, and train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch
from accelerate import Accelerator

from ..adapter import IdentityAdapter, RandomFusion
from ..attributes import find_direction
from ..data.statistics import statistics_for
from ..errors import TrainingError
from ..faces import open_encoder, spec_of
from ..losses import Bank, FaceEmbedder, LossConfig, LossSettings, WeightedTerms, make_losses, over_encoders
from ..losses.row import FACES
from ..rewards import RewardsConfig, make_rewards
from .base import BaseModel
from .config import DenoisingConfig, RewardConfig
from .ddpo import DDPOStep
from .denoiser import IdentityDenoiser, LossEncoder
from .distributed import on_main
from .encoders import RunEncoders
from .faces import embed_prior, open_decoder, open_detector
from .grpo import GRPOStep
from .methods import DDPOConfig, GRPOConfig, SwapConfig
from .open_shards import open_batches
from .open_validation import make_validation
from .opening import lock_folder, make_loop, open_run, run_loop
from .prompt_checks import check_captions, check_prompts
from .reward_backprop import RewardStep
from .rollout import DistilledLoRA, Rollout, ShortRollout, make_scheduler
from .shard_batches import ShardBatches
from .step import TrainingStep
from .styles import open_styles
from .summary import describe_training
from .swap_step import SwapStep
from .trainable import TrainableModules, check_encoder, frozen_adapter, make_modules

Weights = TypeVar("Weights", LossConfig, RewardsConfig)


def train_denoising(config: DenoisingConfig, denoiser: Callable[..., IdentityDenoiser] = IdentityDenoiser) -> int:
    """Run stage one until its end or a signal.

    Args:
        config: Configuration of the run.
        denoiser: Makes the training step, with the arguments of `IdentityDenoiser`.

    Returns:
        The number of updates so far; 0 after a dry run.

    Raises:
        TrainingError: The configuration is inconsistent, another run uses the folder, the folder holds another run,
            or too many updates in a row have a gradient that is not finite or explodes.
        DataError: The shards cannot be read.
        StatisticsError: The settings of a loss follow from the statistics of the face encoder, which are not known.
    """
    with lock_folder(config):
        encoders = RunEncoders.of(config)
        fitted = _fitted(config.losses, config.train_data_dir, encoders, config.losses.centred)
        config = replace(config, losses=fitted[encoders.compared[0]])
        accelerator, base = open_run(config)
        step, batches = _denoiser(config, fitted, base, accelerator, encoders, denoiser)
        return _run(config, step, batches, accelerator, base)


def train_reward(config: RewardConfig) -> int:
    """Run stage two until its end or a signal; returns and raises as `train_denoising`."""
    if config.id_adapter is None and not config.unet_lora_rank:
        raise TrainingError(
            "Nothing would be trained: give id_adapter, the adapter of stage one, or unet_lora_rank, a LoRA alone."
        )
    with lock_folder(config):
        encoders = RunEncoders.of(config)
        fitted = _fitted(config.rewards, config.train_data_dir, encoders)
        config = replace(config, rewards=fitted[encoders.compared[0]])
        accelerator, base = open_run(config)
        batches = open_batches(config, base, accelerator, encoders, isinstance(config.rollout, SwapConfig))
        modules = make_modules(config, base, batches)
        step = _reward_step(config, fitted, base, modules, encoders.open(accelerator.device))
        return _run(config, step, batches, accelerator, base)


def _denoiser(
    config: DenoisingConfig,
    fitted: Mapping[str, LossConfig],
    base: BaseModel,
    accelerator: Accelerator,
    encoders: RunEncoders,
    kind: Callable[..., IdentityDenoiser],
) -> tuple[IdentityDenoiser, ShardBatches]:
    """The training step of stage one and its batches."""
    losses, faces = config.losses, config.faces
    batches = open_batches(config, base, accelerator, encoders, beside=config.adapter.beside is not None)
    terms = _terms(config, fitted, base, batches)
    reads = terms.reads()
    if "negatives" in reads:
        batches.open_negatives(losses.negatives, config.loop.seed)
    if losses.reliability:
        batches.check_reliability()
    modules = make_modules(config, base, batches)
    sees = bool(FACES & reads)
    opened = encoders.open(accelerator.device) if sees else []
    own = [LossEncoder(each, *_compared_with(each.name, losses, reads, batches)) for each in opened]
    detects = faces.landmarks == "prediction" or faces.rollout_steps
    step = kind(
        base,
        **modules._asdict(),
        masks=config.people.masks,
        face_only=config.adapter.face_only,
        losses=terms,
        **(own[0]._asdict() if own else {}),
        others=own[1:],
        decoder=open_decoder(faces, base) if own else None,
        detector=open_detector(faces.detector, own[0].embedder, _people(config)) if own and detects else None,
        x0_steps=faces.steps,
        rollout=_short_rollout(config, base, modules) if sees and faces.rollout_steps else None,
        older=frozen_adapter(losses.older_adapter, base) if "older_embeds" in reads and losses.older_adapter else None,
        beside=_beside(config, base, batches),
        group_means=batches.group_means() if "group_offsets" in reads else None,
        edits=losses.edits,
        directions=[find_direction(name, batches.encoder) for name in losses.moved],
        word_parts=losses.word_parts,
        noise_offset=losses.noise_offset,
        reliability=losses.reliability,
        lognormal=(losses.lognormal_mean, losses.lognormal_std) if losses.timesteps == "lognormal" else None,
        fusion=RandomFusion() if config.adapter.random_fusion else None,
        gather=accelerator.gather,  # pyright: ignore[reportArgumentType]
    )
    return step, batches


def _terms(
    config: DenoisingConfig, fitted: Mapping[str, LossConfig], base: BaseModel, batches: ShardBatches
) -> WeightedTerms:
    """The losses, over all face encoders."""
    losses = config.losses
    styles = open_styles(losses.styles, base, config.data.resolution) if losses.styles else None
    make = partial(
        make_losses,
        parametrisation=base.parametrisation,
        windows=not config.faces.rollout_steps,
        groups=batches.groups,
        styles=None if styles is None else lambda: styles,
    )
    return over_encoders(
        {
            name: make(
                each,
                embedding_dim=batches.embedding_dim(name),
                centres=partial(batches.centres, name),
                centre=batches.centres(name).mean(0) if losses.centred else None,
            )
            for name, each in fitted.items()
        }
    )


def _beside(config: DenoisingConfig, base: BaseModel, batches: ShardBatches) -> IdentityAdapter | None:
    """The frozen adapter of the person beside the one that is trained."""
    if config.adapter.beside is None:
        return None
    adapter = frozen_adapter(config.adapter.beside, base)
    check_encoder(adapter, batches.loader.dataset.manifest.encoder)
    return adapter


def _compared_with(
    encoder: str, losses: LossConfig, reads: set[str], batches: ShardBatches
) -> tuple[Callable[[torch.Tensor], Bank] | None, torch.Tensor | None]:
    """The bank and the prior pictures of a face encoder, if losses read them."""
    bank = partial(batches.bank, encoder=encoder) if "negatives" in reads else None
    wanted = "prior_embeds" in reads and losses.prior_dir
    return bank, embed_prior(str(losses.prior_dir), open_encoder(spec_of(encoder))) if wanted else None


def _reward_step(
    config: RewardConfig,
    fitted: Mapping[str, RewardsConfig],
    base: BaseModel,
    modules: TrainableModules,
    embedders: Sequence[FaceEmbedder],
) -> TrainingStep:
    """The step of the configured method."""
    method, passes = config.rollout, config.loop.gradient_accumulation_steps
    rewards = over_encoders({each.name: make_rewards(fitted[each.name], each, base.unet.device) for each in embedders})
    networks: dict[str, Any] = {"detector": open_detector(method.detector, embedders[0], _people(config))}
    networks |= {"masks": config.people.masks, **modules._asdict()}
    if isinstance(method, GRPOConfig):
        return GRPOStep(base, rewards=rewards, config=method, passes=passes, embedder=embedders[0], **networks)
    if isinstance(method, DDPOConfig):
        return DDPOStep(base, rewards=rewards, config=method, embedder=embedders[0], **networks)
    decoder = open_decoder(method, base)
    kind = SwapStep if isinstance(method, SwapConfig) else RewardStep
    return kind(base, rewards=rewards, config=method, embedders=embedders, decoder=decoder, **networks)


def _people(config: DenoisingConfig | RewardConfig) -> int:
    """The largest number of people in a picture."""
    return config.people.count[1] if config.data.group == "photo" else 1


def _fitted(config: Weights, shards: str, encoders: RunEncoders, centred: bool = False) -> dict[str, Weights]:
    """The configuration with all weights, and with the settings that follow from each face encoder."""
    if not config.needs_statistics:
        return {name: config.fitted() for name in encoders.compared}
    measured = partial(statistics_for, shards, centred=centred)
    return {name: config.fitted(LossSettings.fitting(measured(name))) for name in encoders.compared}


def _short_rollout(config: DenoisingConfig, base: BaseModel, modules: TrainableModules) -> ShortRollout:
    faces = config.faces
    if faces.distilled and (config.loop.gradient_checkpointing or modules.lora is not None):
        raise TrainingError(
            "faces.distilled is active in the rollout only: it cannot be combined with gradient_checkpointing, which "
            "recomputes layers after the rollout, nor with unet_lora_rank."
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
    beside = step.beside if isinstance(step, IdentityDenoiser) else None
    validate, early_stopping = make_validation(config, base, step.adapter, accelerator, beside)
    if (named := beside or step.adapter) is not None:
        on_main(check_captions, batches.loader.dataset, base, named)
        if validate is not None:
            check_prompts(config.validation.validation_prompts, "validation_prompts", base, named)
    data = {"train_data_dir.photos": batches.key()}
    loop = make_loop(
        config, step, batches, base, accelerator, data=data, validate=validate, early_stopping=early_stopping
    )
    done = run_loop(loop)
    if accelerator.is_main_process and done:
        describe_training(config.output_dir, batches.loader.dataset.manifest, config, done)
    accelerator.end_training()
    return done
