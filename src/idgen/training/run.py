"""A configuration → a run: the base model, the adapter, the shards, the step and the loop."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from accelerate import Accelerator

from ..adapter import IdentityAdapter, RandomFusion
from ..data.bank import IdentityBank
from ..data.cache import framing_for
from ..data.columns import column_url
from ..data.dataset import PairedIdentityDataset, Pairing
from ..data.loader import PairedLoader
from ..data.makers import LatentMaker
from ..data.storage import exists
from ..errors import EncoderMismatchError, TrainingError
from ..faces import DlibDetector
from ..losses import FaceDecoder, FaceEmbedder, Term
from ..rewards import IdentityReward, WeightedRewards
from .base import BaseModel
from .card import describe_training
from .config import DenoisingConfig, RewardConfig
from .denoiser import IdentityDenoiser
from .dry_run import dry_run
from .loop import Loop
from .rewarder import RewardStep
from .rollout import Rollout
from .shard_batches import ShardBatches
from .terms import FACE_INPUT, make_terms
from .trackers import check_tracker, start_trackers
from .watch import make_watch


def train_denoising(config: DenoisingConfig) -> None:
    """Run stage one to its end, or to a signal.

    Raises:
        TrainingError: The configuration does not fit together, or the loss is not finite for too long.
        DataError: The shards cannot be read.
    """
    accelerator, base = _open(config)
    batches = open_batches(config, base, accelerator, config.losses.negatives if config.losses.contrastive else 0)
    adapter = (
        _new_adapter(config, base, batches) if config.adapter.id_adapter is None else _given(config.adapter.id_adapter)
    )
    _check_encoder(adapter, batches)
    adapter.attach(base.unet)
    terms = make_terms(config.losses, base.parametrisation)
    faces = FACE_INPUT in terms.reads()
    step = IdentityDenoiser(
        base,
        adapter.to(accelerator.device),
        terms,
        embedder=_embedder(adapter, accelerator) if faces else None,
        decoder=FaceDecoder(vae=base.pipeline.vae) if faces else None,
        bank=batches.bank if batches.negatives is not None else None,
        fusion=RandomFusion() if config.adapter.random_fusion else None,
        gather=accelerator.gather,  # pyright: ignore[reportArgumentType]
    )
    _run(config, step, batches, accelerator, base)


def train_reward(config: RewardConfig) -> None:
    """Run stage two to its end, or to a signal; raises as `train_denoising`."""
    accelerator, base = _open(config)
    batches = open_batches(config, base, accelerator)
    adapter = _given(config.id_adapter)
    _check_encoder(adapter, batches)
    adapter.attach(base.unet)
    rollout = config.rollout
    embedder = _embedder(adapter, accelerator)
    reward = Term(IdentityReward(embedder=embedder), rollout.identity_weight, None, "face_found")
    step = RewardStep(
        base,
        adapter.to(accelerator.device),
        Rollout(scheduler=base.pipeline.scheduler, method=rollout.method, steps=rollout.steps, last=rollout.last),
        WeightedRewards({"identity": reward}),
        embedder=embedder,
        decoder=FaceDecoder(vae=base.pipeline.vae),
        detector=DlibDetector(),
        preservation=rollout.preservation,
        guidance_scale=rollout.guidance_scale,
    )
    _run(config, step, batches, accelerator, base)


def open_batches(
    config: DenoisingConfig | RewardConfig, base: BaseModel, accelerator: Accelerator, negatives: int = 0
) -> ShardBatches:
    """The training split of the shards, with cached latents where they are this model's.

    Args:
        config: Of the run.
        base: Its VAE encodes what is not cached.
        accelerator: Says which process this is.
        negatives: Other people for each sample; 0 for none.
    """
    data, name = config.data, config.pretrained_model_name_or_path
    framing = framing_for(name, data.resolution)
    cached = exists(column_url(config.train_data_dir, "000000", "latents"))
    dataset = PairedIdentityDataset(
        config.train_data_dir,
        framing=framing,
        latents=LatentMaker(base.pipeline.vae, framing).key() if cached else None,
        pairing=Pairing(
            paired_ratio=data.paired_ratio,
            references=data.references,
            drop_text=data.drop_text,
            drop_identity=data.drop_identity,
            drop_both=data.drop_both,
            component_dropout=data.component_dropout,
            normalised=_normalised(config),
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
    return ShardBatches(loader, None if cached else base.pipeline.vae, bank)


def _open(config: DenoisingConfig | RewardConfig) -> tuple[Accelerator, BaseModel]:
    loop = config.loop
    check_tracker(loop.report_to)
    accelerator = Accelerator(
        mixed_precision=loop.mixed_precision,
        gradient_accumulation_steps=loop.gradient_accumulation_steps,
        log_with=loop.report_to,
        project_dir=config.output_dir,
    )
    torch.manual_seed(loop.seed)
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[loop.mixed_precision]
    base = BaseModel.open(config.pretrained_model_name_or_path, dtype, accelerator.device)
    if loop.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    start_trackers(accelerator, asdict(config))
    return accelerator, base


def _new_adapter(config: DenoisingConfig, base: BaseModel, batches: ShardBatches) -> IdentityAdapter:
    ours, bank = config.adapter, batches.loader.dataset.bank
    words: dict[str, Any] = (
        {"text_encoders": base.text_encoders, "num_words": ours.num_words} if ours.num_words else {}
    )
    adapter = IdentityAdapter.from_unet(
        base.unet,
        encoder=ours.encoder,
        embedding_dim=bank.embeddings.shape[1],
        normalised=ours.normalised,
        projection=ours.projection,
        num_tokens=ours.num_tokens,
        **words,
    )
    some = torch.from_numpy(bank.embeddings[:10_000].copy())
    adapter.start_for(torch.nn.functional.normalize(some, dim=-1) if ours.normalised else some)
    return adapter


def _given(name: str) -> IdentityAdapter:
    adapter = IdentityAdapter.from_pretrained(name)
    return adapter.train().requires_grad_(True)


def _normalised(config: DenoisingConfig | RewardConfig) -> bool:
    given = config.id_adapter if isinstance(config, RewardConfig) else config.adapter.id_adapter
    if given is None:
        assert isinstance(config, DenoisingConfig)
        return config.adapter.normalised
    return bool(IdentityAdapter.from_pretrained(given).config["normalised"])


def _check_encoder(adapter: IdentityAdapter, batches: ShardBatches) -> None:
    trained, found = adapter.config["encoder"], batches.loader.dataset.manifest.encoder
    if trained != found:
        raise EncoderMismatchError(f"The adapter reads embeddings of '{trained}', the shards hold those of '{found}'.")


def _embedder(adapter: IdentityAdapter, accelerator: Accelerator) -> FaceEmbedder:
    """The adapter's own encoder, as losses and rewards use it."""
    embedder = FaceEmbedder.dlib()
    if adapter.config["encoder"] != embedder.name:
        raise TrainingError(
            f"'{adapter.config['encoder']}' has no gradient here; losses and rewards on faces know '{embedder.name}'."
        )
    embedder.encoder.to(accelerator.device)
    return embedder


def _run(
    config: DenoisingConfig | RewardConfig, step: Any, batches: ShardBatches, accelerator: Accelerator, base: BaseModel
) -> None:
    validate, guard = make_watch(config, base, step.adapter, accelerator)
    loop = Loop(
        step, batches, config.output_dir, config.loop, config.optimizer, accelerator, validate=validate, guard=guard
    )
    if config.loop.dry_run:
        dry_run(loop)
        return
    loop.run()
    if accelerator.is_main_process:
        describe_training(config.output_dir, batches.loader.dataset.manifest, asdict(config))
    accelerator.end_training()
