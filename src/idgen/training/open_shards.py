"""The shards of a run's configuration, opened for training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from accelerate import Accelerator

from ..data.columns import column_url
from ..data.dataset import PairedIdentityDataset
from ..data.framing import framing_for
from ..data.group_dataset import GroupDataset
from ..data.loader import PairedLoader
from ..data.makers import LatentMaker, TextMaker
from ..data.pairing import Pairing
from ..data.storage import exists
from ..data.triplets import triplets_key
from ..errors import DataError
from ..faces.expression import EXPRESSION
from .base import BaseModel
from .encoders import RunEncoders
from .run_config import ShardConfig
from .shard_batches import ShardBatches


def open_batches(
    config: ShardConfig,
    base: BaseModel,
    accelerator: Accelerator,
    encoders: RunEncoders,
    triplets: bool = False,
    beside: bool = False,
) -> ShardBatches:
    """Open the training split of the shards, with the latents and prompt embeddings that are cached in it.

    Args:
        config: Configuration of the run.
        base: Its VAE and text encoders encode what is not cached.
        accelerator: Gives the number of this process.
        encoders: Face encoders of the adapter, and of the losses or rewards.
        triplets: Whether to read `Batch.swapped`.
        beside: Whether to read `Batch.beside`.

    Raises:
        DataError: The shards cannot be read, they lack triplets or the embeddings of an encoder, or they cache the
            outputs of another model.
    """
    shards, data = config.train_data_dir, config.data
    has_latents, has_text = (exists(column_url(shards, "000000", column)) for column in ("latents", "text"))
    has_latents = has_latents and not data.poses and data.group == "face"
    framing = framing_for(config.base, data.resolution)
    latents = LatentMaker(base.pipeline.vae, framing, network=base.keys["vae"])
    text = TextMaker(None, None, network=base.keys["text_encoder"]) if len(base.text_encoders) == 1 else None
    one_face = beside or encoders.adapter == EXPRESSION
    dataset = _dataset_of(config, latents if triplets else None, beside, one_face)(
        shards,
        framing=framing,
        latents=latents.key() if has_latents else None,
        text=text.key() if has_text and text is not None else None,
        pairing=_pairing(config),
        encoder=encoders.adapter,
        compare=encoders.compared,
        compare_references=config.terms is not None and config.terms.over is not None,
        seed=config.loop.seed,
    )
    loader = PairedLoader(
        dataset,
        config.loop.train_batch_size,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        workers=data.dataloader_num_workers,
    )
    return ShardBatches(loader, None if has_latents else base.pipeline.vae, encode=base.encode)


def _dataset_of(
    config: ShardConfig, triplets: LatentMaker | None, beside: bool, one_face: bool
) -> Callable[..., PairedIdentityDataset]:
    """The class of the dataset: with one person or several in a sample; with triplets of these latents, if given."""
    people: Any = getattr(config, "people", None)
    if config.data.group == "face":
        key = None if triplets is None else triplets_key(config.train_data_dir, triplets)
        return partial(PairedIdentityDataset, triplets=key, beside=beside)
    if people is None or one_face:
        raise DataError(
            f"This stage trains with one person in each picture: group must be 'face', not '{config.data.group}'."
        )
    return partial(GroupDataset, people=people)


def _pairing(config: ShardConfig) -> Pairing:
    data = config.data
    return Pairing(
        paired_ratio=data.paired_ratio,
        curriculum=data.curriculum_steps * config.loop.gradient_accumulation_steps,
        references=data.references,
        far=data.far,
        drop_text=data.drop_text,
        drop_identity=data.drop_identity,
        drop_both=data.drop_both,
        component_dropout=data.component_dropout,
        moves=data.moves,
        flip=data.flip,
        poses=data.poses,
    )
