"""Every face once an epoch, whoever reads and wherever the run was cut."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from idgen.data.loader import BatchPlan, Position
from idgen.errors import DataError

SHARDS = np.repeat(np.arange(7), [5, 0, 12, 1, 9, 3, 8])


def plan(batch_size: int = 4, **options) -> BatchPlan:
    return BatchPlan(SHARDS, lambda face: (64, 64) if face % 3 else (96, 48), batch_size, **options)


def take(plan: BatchPlan, start: Position, count: int, rank: int = 0, world: int = 1) -> list:
    return list(itertools.islice(plan.batches(start, rank, world), count))


@pytest.mark.parametrize("window", [1, 3, 100])
def test_an_epoch_holds_every_face_once_in_batches_of_one_size(window):
    batches = list(plan(window=window).epoch(3))
    assert Counter(itertools.chain(*batches)) == Counter(range(len(SHARDS)))
    assert all(len({face % 3 == 0 for face in batch}) == 1 for batch in batches)
    assert all(len(batch) == 4 for batch in batches[:-2])


def test_epochs_and_seeds_differ_and_repeat():
    first, again, next_epoch = (list(plan(seed=1).epoch(epoch)) for epoch in (0, 0, 1))
    assert first == again
    assert first != next_epoch
    assert first != list(plan(seed=2).epoch(0))


def test_a_small_window_keeps_reads_near_each_other():
    opened = [len({SHARDS[face] for face in batch}) for batch in plan(window=1).epoch(0)]
    assert np.mean(opened) < np.mean([len({SHARDS[face] for face in batch}) for batch in plan(window=100).epoch(0)])


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_stream_of_one(world):
    alone = [planned for planned, _ in take(plan(), Position(0, 0), 24)]
    parts = [take(plan(), Position(0, 0), 24 // world, rank, world) for rank in range(world)]
    together = [parts[i % world][i // world][0] for i in range(24)]
    assert together == alone


def test_a_cut_run_goes_on_with_the_same_batches_and_another_number_of_processes():
    whole = [planned for planned, _ in take(plan(), Position(0, 0), 40)]
    for cut in (1, 5, 11, 12, 23):
        _, after = take(plan(), Position(0, 0), cut)[-1]
        assert [planned for planned, _ in take(plan(), after, 10)] == whole[cut : cut + 10]
    _, after = take(plan(), Position(0, 0), 3, rank=1, world=2)[-1]
    assert [planned for planned, _ in take(plan(), after, 10)] == whole[6:16]


def test_nothing_to_plan_is_an_error():
    with pytest.raises(DataError, match="faces"):
        BatchPlan(np.zeros(0, int), lambda face: (64, 64), 4)
