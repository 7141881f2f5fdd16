"""Checks, before a run starts, that its captions and prompts can be used with the adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..adapter import IdentityAdapter, IdentityTokens
from ..data.dataset import PairedIdentityDataset
from ..data.index import read_index
from ..data.storage import join
from ..errors import AdapterError, DataError, TrainingError
from ..pipelines.prompts import PLACEHOLDER, has_placeholder, insert_pseudo_words
from .base import BaseModel

NAMED = 3
"""Number of photos that an error message names."""


def check_captions(dataset: PairedIdentityDataset, base: BaseModel, adapter: IdentityAdapter) -> None:
    """Check that in all captions `<id>` is within the length of the text encoders.

    Args:
        dataset: Dataset whose captions are checked.
        base: Base model with the tokenizers.
        adapter: Adapter whose pseudo-words replace `<id>`. If it has none, `<id>` becomes an ordinary word.

    Raises:
        DataError: Captions are too long; their photos are named.
    """
    identity = _any_identity(adapter)
    if not any(words is not None for words in identity.words):
        return
    bad = [source for source, caption in _long_captions(dataset, base, identity) if not _fits(base, identity, caption)]
    if bad:
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise DataError(
            f"The captions of {', '.join(map(repr, bad[:NAMED]))}{more} are too long: {PLACEHOLDER} is beyond the "
            f"length of the text encoder. Move it forward and prepare the photos again, or train without num_words."
        )


def check_prompts(prompts: Sequence[str], name: str, base: BaseModel, adapter: IdentityAdapter) -> None:
    """Check that prompts of the configuration can be used with the adapter.

    Args:
        prompts: Prompts to check.
        name: Name of the setting, for the message.
        base: Base model with the tokenizers.
        adapter: Adapter whose pseudo-words replace `<id>`.

    Raises:
        TrainingError: A prompt has `<id>` and the adapter has no pseudo-words, or `<id>` is too far back.
    """
    for prompt in prompts:
        try:
            if has_placeholder({"prompt": prompt}):
                with insert_pseudo_words(base.pipeline, [_any_identity(adapter)], {"prompt": prompt}):
                    pass
        except AdapterError as error:
            raise TrainingError(f"{name} '{prompt}' cannot be used: {error}") from error


@torch.no_grad()
def _any_identity(adapter: IdentityAdapter) -> IdentityTokens:
    return adapter.encode(torch.zeros(1, adapter.config["embedding_dim"], device=adapter.device))


def _long_captions(
    dataset: PairedIdentityDataset, base: BaseModel, identity: IdentityTokens
) -> Iterator[tuple[str, str]]:
    """Photos and captions that may be too long, so that their tokens must be counted."""
    room = base.pipeline.tokenizer.model_max_length - 2
    words = max(words.shape[1] for words in identity.words if words is not None)
    rows = np.asarray(dataset.bank.rows)
    for shard in np.unique(rows[:, 0]).tolist():
        table = read_index(join(dataset.shards, f"{dataset.names[shard]}.parquet"), ("source", "caption"))
        table = table.take(np.sort(rows[rows[:, 0] == shard, 1]))
        for source, caption in zip(table["source"].to_pylist(), table["caption"].to_pylist(), strict=True):
            if may_be_long(caption or "", words, room):
                yield source, caption


def may_be_long(caption: str, words: int, room: int) -> bool:
    """Whether the last `<id>` may lie beyond the first `room` tokens, if each `<id>` takes `words` tokens.

    The bound is two tokens per byte: a token is at least one byte, and lower case may be longer than upper case.
    """
    before, found, _ = caption.rpartition(PLACEHOLDER)
    return bool(found) and 2 * len(before.encode()) + words * caption.count(PLACEHOLDER) > room


def _fits(base: BaseModel, identity: IdentityTokens, caption: str) -> bool:
    try:
        with insert_pseudo_words(base.pipeline, [identity], {"prompt": caption}):
            return True
    except AdapterError:
        return False
