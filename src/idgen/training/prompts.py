"""The prompts that a run will read, checked before it starts: an update is too late to find one that is too long."""

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
"""So many photos are named in the message."""


def check_captions(dataset: PairedIdentityDataset, base: BaseModel, adapter: IdentityAdapter) -> None:
    """Refuse captions whose `<id>` lies beyond what a text encoder reads.

    Args:
        dataset: All captions of its split are read.
        base: Its tokenizers count the words.
        adapter: Its pseudo-words take the place of `<id>`; without any, `<id>` is an ordinary word.

    Raises:
        DataError: There are such captions; the photos are named.
    """
    person = _somebody(adapter)
    if not any(words is not None for words in person.words):
        return
    bad = [source for source, caption in _long_captions(dataset, base, person) if not _fits(base, person, caption)]
    if bad:
        more = f" and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise DataError(
            f"The captions of {', '.join(map(repr, bad[:NAMED]))}{more} are too long: {PLACEHOLDER} lies beyond what "
            f"the text encoder reads. Move it forward and prepare the photos again, or train without num_words."
        )


def check_prompts(prompts: Sequence[str], name: str, base: BaseModel, adapter: IdentityAdapter) -> None:
    """Refuse prompts of the configuration that the adapter cannot be drawn with.

    Raises:
        TrainingError: `<id>` stands in one and the adapter has no words, or it stands too far back.
    """
    for prompt in prompts:
        try:
            if has_placeholder({"prompt": prompt}):
                with insert_pseudo_words(base.pipeline, [_somebody(adapter)], {"prompt": prompt}):
                    pass
        except AdapterError as error:
            raise TrainingError(f"{name} '{prompt}' cannot be used: {error}") from error


@torch.no_grad()
def _somebody(adapter: IdentityAdapter) -> IdentityTokens:
    return adapter.encode(torch.zeros(1, adapter.config["embedding_dim"], device=adapter.device))


def _long_captions(
    dataset: PairedIdentityDataset, base: BaseModel, person: IdentityTokens
) -> Iterator[tuple[str, str]]:
    """Photos and captions whose tokens are worth counting."""
    room = base.pipeline.tokenizer.model_max_length - 2
    words = max(words.shape[1] for words in person.words if words is not None)
    rows = np.asarray(dataset.bank.rows)
    for shard in np.unique(rows[:, 0]).tolist():
        table = read_index(join(dataset.shards, f"{dataset.names[shard]}.parquet"), ("source", "caption"))
        table = table.take(np.sort(rows[rows[:, 0] == shard, 1]))
        for source, caption in zip(table["source"].to_pylist(), table["caption"].to_pylist(), strict=True):
            if may_be_long(caption or "", words, room):
                yield source, caption


def may_be_long(caption: str, words: int, room: int) -> bool:
    """Whether the last `<id>` can lie beyond `room` tokens, where each `<id>` is so many words.

    A token stands for at least one byte, or for half of one where a small letter is longer than its capital.
    """
    before, found, _ = caption.rpartition(PLACEHOLDER)
    return bool(found) and 2 * len(before.encode()) + words * caption.count(PLACEHOLDER) > room


def _fits(base: BaseModel, person: IdentityTokens, caption: str) -> bool:
    try:
        with insert_pseudo_words(base.pipeline, [person], {"prompt": caption}):
            return True
    except AdapterError:
        return False
