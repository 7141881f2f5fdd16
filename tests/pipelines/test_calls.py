"""The state of a call belongs to the call: what runs at the same time on the same UNet changes no result."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, HeunDiscreteScheduler

from idgen.adapter import ScaleSchedule
from idgen.errors import AdapterError
from tests.components import make_adapter, make_pipeline

from .kinds import ANNA, BRUNO, CASES, FROWN, SMILE, adapter_for, draw, expressions, make, plain_over

EVERY_KIND = [case for case in CASES if "sdxl" in case or "txt2img" in case]
"""Every kind for every task, of SDXL: what a call keeps is the same for both families."""


def in_thread(function: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=60)


def during(pipeline: Any, task: str, kind: str, others: dict[str, Callable[[], Any]], **arguments: Any) -> Any:
    """What a call draws, and what others find that run in the middle of it."""
    found: dict[str, Any] = {}

    def on_step(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            for name, other in others.items():
                found[name] = other()
        return tensors

    return draw(pipeline, task, kind, callback_on_step_end=on_step, **arguments), found


@pytest.mark.parametrize(("family", "task", "kind"), EVERY_KIND)
def test_a_result_is_the_one_that_a_call_has_alone(family: str, task: str, kind: str) -> None:
    pipeline = make(family, task, kind)
    unnamed, second = plain_over(pipeline), plain_over(pipeline)
    nobody = draw(unnamed)
    pipeline.load_id_adapter(adapter_for(pipeline, kind))
    second.load_id_adapter(make_adapter(pipeline.unet, seed=9))
    anna, bruno = draw(pipeline, task, kind, id_embeds=ANNA), draw(second, id_embeds=BRUNO)
    others = {
        "preview": lambda: draw(unnamed),
        "unnamed in a thread": lambda: in_thread(lambda: draw(unnamed)),
        "second adapter in a thread": lambda: in_thread(lambda: draw(second, id_embeds=BRUNO)),
        "second adapter in a callback": lambda: draw(second, id_embeds=BRUNO),
    }
    if kind == "pag":  # it replaces the UNet's attention processors while it draws
        for name, other in others.items():
            with pytest.raises(AdapterError, match="perturbed"):
                during(pipeline, task, kind, {name: other}, id_embeds=ANNA)
        assert np.array_equal(draw(pipeline, task, kind, id_embeds=ANNA), anna)
        return
    found, seen = during(pipeline, task, kind, others, id_embeds=ANNA)
    assert np.array_equal(found, anna)
    assert np.array_equal(seen["preview"], nobody)
    assert np.array_equal(seen["unnamed in a thread"], nobody)
    assert np.array_equal(seen["second adapter in a thread"], bruno)
    assert np.array_equal(seen["second adapter in a callback"], bruno)
    assert np.abs(anna - draw(pipeline, task, kind, id_embeds=BRUNO)).max() > 0.01


@pytest.mark.parametrize("scheduler", [None, EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_copies_share_a_scheduler_and_do_not_disturb_each_other(scheduler: Any) -> None:
    pipeline = make_pipeline()
    if scheduler is not None:
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    twin = copy.copy(pipeline)
    nobody, anna, bruno = (draw(pipeline, id_embeds=who) for who in (None, ANNA, BRUNO))
    others = {
        "copy, unnamed": lambda: in_thread(lambda: draw(twin)),
        "copy, named": lambda: in_thread(lambda: draw(twin, id_embeds=BRUNO)),
        "itself": lambda: draw(pipeline, id_embeds=BRUNO, guidance_scale=5.0),
        "itself, unnamed": lambda: draw(pipeline),
    }
    found, seen = during(pipeline, "txt2img", "plain", others, id_embeds=ANNA)
    assert np.array_equal(found, anna)
    assert np.array_equal(seen["copy, unnamed"], nobody)
    assert np.array_equal(seen["copy, named"], bruno)
    assert np.array_equal(seen["itself"], bruno)
    assert np.array_equal(seen["itself, unnamed"], nobody)
    with pytest.raises(AdapterError, match="another thread"):
        during(pipeline, "txt2img", "plain", {"": lambda: in_thread(lambda: draw(pipeline))}, id_embeds=ANNA)


def test_a_scale_that_a_callback_sets_holds_from_the_next_step_on() -> None:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    other = copy.copy(pipeline)

    def turn_off(pipe: Any, step: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            pipe.set_id_adapter_scale(0.0)
        return tensors

    ended = draw(pipeline, id_embeds=ANNA, callback_on_step_end=turn_off)
    pipeline.set_id_adapter_scale(1.0)
    scheduled = draw(pipeline, id_embeds=ANNA, id_scale=ScaleSchedule(end=1 / 3))
    assert np.array_equal(ended, scheduled)
    assert not np.array_equal(ended, draw(pipeline, id_embeds=ANNA))
    anna = draw(other, id_embeds=ANNA)
    found, _ = during(other, "txt2img", "plain", {"": lambda: pipeline.set_id_adapter_scale(0.0)}, id_embeds=ANNA)
    assert np.array_equal(found, anna), "another pipeline's scale is its own"
    assert np.array_equal(draw(copy.copy(pipeline), id_embeds=ANNA), draw(other)), "a copy begins with the same scale"


def test_an_adapter_is_not_unloaded_under_a_running_call() -> None:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    twin = copy.copy(pipeline)
    anna = draw(pipeline, id_embeds=ANNA)
    with pytest.raises(AdapterError, match="while a call is using"):
        during(pipeline, "txt2img", "plain", {"": twin.unload_id_adapter}, id_embeds=ANNA)
    twin.unload_id_adapter()
    assert np.array_equal(draw(pipeline, id_embeds=ANNA), anna), "the pipeline that still has it attaches it again"


def test_two_threads_draw_at_the_same_time_what_each_draws_alone() -> None:
    """They read words of two people, two expressions, and an expression and none; each step waits for the other's."""
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet, text_encoders=[pipeline.text_encoder]))
    pipeline.load_id_adapter(expressions(pipeline), adapter_name="expression")
    twin = copy.copy(pipeline)
    anna, bruno = ({"prompt": "a <id>", "id_embeds": who} for who in (ANNA, BRUNO))
    smiling, frowning = ({**anna, "expression_image": each} for each in (SMILE, FROWN))
    step = threading.Barrier(2, timeout=30)

    def wait(_: Any, __: int, ___: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        step.wait()
        return tensors

    with ThreadPoolExecutor(2) as pool:
        for calls in ((anna, bruno), (smiling, frowning), (smiling, anna)):
            alone = [draw(pipeline, **arguments) for arguments in calls]
            assert np.abs(alone[0] - alone[1]).max() > 0.02
            both = [
                pool.submit(draw, pipe, callback_on_step_end=wait, **arguments)
                for pipe, arguments in zip((pipeline, twin), calls, strict=True)
            ]
            for found, expected in zip(both, alone, strict=True):
                assert np.array_equal(found.result(), expected)


def test_stress() -> None:
    """8 threads, 3 pipelines on one UNet, 2 adapters, calls with and without a person: right or refused."""
    first = make_pipeline()
    pipelines = [first, plain_over(first), copy.copy(first)]
    pipelines[0].load_id_adapter(make_adapter(first.unet))
    pipelines[1].load_id_adapter(make_adapter(first.unet, seed=9))
    pipelines[2].load_id_adapter(pipelines[0].id_adapters["default"])
    calls = [(i, who) for i in range(3) for who in (None, ANNA, BRUNO)]
    steps: dict[str, Any] = {"num_inference_steps": 2}
    alone = [draw(pipelines[i], id_embeds=who, **steps) for i, who in calls]
    refused: list[int] = []

    def call(seed: int) -> float:
        chosen = random.Random(seed).randrange(len(calls))
        i, who = calls[chosen]
        while True:
            try:
                return float(np.abs(draw(pipelines[i], id_embeds=who, **steps) - alone[chosen]).max())
            except AdapterError:  # the pipeline object is drawing in another thread
                refused.append(seed)
                time.sleep(0.02)

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(call, range(100))) <= 1e-5
    assert refused, "threads have met"


def test_gradient_checkpointing_refuses_two_identities_in_one_backward_pass() -> None:
    unet = make_pipeline().unet
    adapter = make_adapter(unet).train()
    adapter.attach(unet)
    unet.enable_gradient_checkpointing()
    unet.train()
    sample, text = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 16)
    person = adapter.encode(torch.ones(1, 8))
    with adapter.activate([person], 1):
        unet(sample, 500, encoder_hidden_states=text)
        with torch.no_grad(), adapter.deactivate():
            unet(sample, 500, encoder_hidden_states=text)
        with adapter.deactivate(), pytest.raises(AdapterError, match="backward pass"):
            unet(sample, 500, encoder_hidden_states=text)
