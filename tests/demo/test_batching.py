"""Requests that wait share a call of the pipeline, and get what they would have got alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from idgen import Identity
from idgen.demo.batching import Job, Turns
from idgen.demo.drawing import Drawing
from idgen.demo.generation import GenerationSettings
from idgen.demo.pipeline import SharedPipeline
from idgen.demo.sessions import StoppedError
from idgen.errors import AdapterError
from tests.components import SIDE, make_adapter, make_pipeline, seeded


class Numbered(Job[int]):
    def __init__(self, number: int, shares: str | None = "same", images: int = 1) -> None:
        super().__init__(images, shares, threading.Event())
        self.number = number


def run_while_one_is_running(jobs: Sequence[Numbered], most: int = 3) -> tuple[list[list[int]], list[Any]]:
    """The calls that jobs share that come in this order, and what each of them gets; job 13 is a mistake."""
    calls: list[list[int]] = []
    running, go_on = threading.Event(), threading.Event()

    def call(jobs: Sequence[Numbered]) -> list[int]:
        calls.append([job.number for job in jobs])
        running.set()
        assert go_on.wait(10)
        if 13 in calls[-1]:
            raise AdapterError("a mistake")
        return [-job.number for job in jobs]

    turns = Turns(call, most)
    with ThreadPoolExecutor(len(jobs) + 1) as pool:
        first = pool.submit(turns.run, Numbered(0))
        assert running.wait(10)
        waiting = []
        for job in jobs:
            waiting.append(pool.submit(turns.run, job))
            while len(turns._waiting) < len(waiting):
                pass
        go_on.set()
        assert first.result() == 0
        found = [future.exception() or future.result() for future in waiting]
    return calls[1:], found


def test_the_oldest_goes_first_and_takes_those_with_it_that_fit() -> None:
    jobs = [
        Numbered(1),
        Numbered(2, "other"),
        Numbered(3, images=2),
        Numbered(4),
        Numbered(5, None),
        Numbered(6, None),
    ]
    calls, found = run_while_one_is_running(jobs)
    assert calls == [[1, 3], [2], [4], [5], [6]]
    assert found == [-1, -2, -3, -4, -5, -6]


def test_an_error_belongs_to_one_request() -> None:
    calls, found = run_while_one_is_running([Numbered(1), Numbered(13), Numbered(2)])
    assert calls == [[1, 13, 2], [1], [13], [2]]
    assert (found[0], found[2]) == (-1, -2)
    assert isinstance(found[1], AdapterError)


def test_a_stopped_request_is_left_out() -> None:
    jobs = [Numbered(1), Numbered(2), Numbered(3)]
    jobs[0].stop.set()
    calls, found = run_while_one_is_running(jobs)
    assert calls == [[2, 3]]
    assert isinstance(found[0], StoppedError)


@pytest.fixture(scope="module")
def pipeline() -> SharedPipeline:
    pipe = make_pipeline()
    pipe.load_id_adapter(make_adapter(pipe.unet))
    return SharedPipeline(pipe)


def drawing(number: int, count: int, steps: list[Any]) -> Drawing:
    settings = GenerationSettings(
        prompt="a man" if number else "a face", negative_prompt="x" * number, width=SIDE, height=SIDE, steps=2,
        seed=number, count=count,
    )  # fmt: skip
    return Drawing(
        images=count,
        shares=settings.of_call,
        stop=threading.Event(),
        task="text-to-image",
        settings=settings,
        identities=[Identity(embeddings=torch.randn(1, 8, generator=seeded(number)), encoder="test")],
        arguments={"width": SIDE, "height": SIDE},
        on_step=lambda done, total, preview: steps.append((number, done, total, preview())),
    )


def furthest(one: Any, other: Any) -> int:
    """Largest difference of two images or lists of images, in levels of 8 bits."""
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def test_shared_and_alone_the_images_are_the_same(pipeline: SharedPipeline) -> None:
    alone_steps, shared_steps = [], []
    alone = [pipeline._draw([drawing(i, count, alone_steps)])[0] for i, count in enumerate((1, 2, 1))]
    shared = pipeline._draw([drawing(i, count, shared_steps) for i, count in enumerate((1, 2, 1))])
    assert [len(images) for images in shared] == [1, 2, 1]
    assert all(
        furthest([*map(np.asarray, one)], [*map(np.asarray, other)]) <= 1
        for one, other in zip(alone, shared, strict=True)
    )
    assert furthest(alone[0][0], alone[2][0]) > 20
    assert sorted(step[:3] for step in shared_steps) == sorted(step[:3] for step in alone_steps)
    for number, done, _, preview in shared_steps:
        assert furthest(preview, next(step[3] for step in alone_steps if step[:2] == (number, done))) <= 1
