"""Gradients of identity and other losses that are combined otherwise than summed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator, DistributedType
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import distribute_tensor

from idgen.errors import TrainingError
from idgen.losses import LossConfig, Weighted
from idgen.training.config import LoopConfig, OptimizerConfig
from idgen.training.conflicts import ConflictingGradients, mgda, pcgrad
from idgen.training.distributed import make_accelerator
from idgen.training.loop import Loop
from idgen.training.parsing import parse
from tests.components import ONE_LEVEL, seeded

from .runs import RandomPeople, make_step
from .test_accumulation import OneByOne

Gradients = list[torch.Tensor]


def pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Gradients in conflict or not, of similar and of very different size, and opposite or equal ones."""
    random = [torch.randn(2, 3, generator=seeded(i), dtype=torch.float64) for i in range(40)]
    found = [(a * 10 ** (i % 7 - 3), b) for i, (a, b) in enumerate(random)]
    return [*found, (found[0][1], found[0][1]), (found[1][1], -found[1][1]), (found[2][1], -3 * found[2][1])]


def combined(method: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    first, second = method(float(a @ a), float(b @ b), float(a @ b))
    return first * a + second * b


def test_pcgrad_is_the_sum_of_both_projections() -> None:
    for a, b in pairs():
        conflict = a @ b < 0
        expected = a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a if conflict else a + b
        found = combined(pcgrad, a, b)
        torch.testing.assert_close(found, expected)
        assert min(found @ a, found @ b) >= -1e-9 * (a.norm() * b.norm())  # neither loss rises


def test_mgda_is_the_shortest_convex_combination() -> None:
    shares = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    for a, b in pairs():
        found, grid = combined(mgda, a, b), shares * a + (1 - shares) * b
        assert found.norm() <= grid.norm(dim=1).min() + 1e-12
        assert min(found @ a, found @ b) >= found @ found - 1e-9 * (a.norm() * b.norm())


@pytest.mark.parametrize("method", ["pcgrad", "mgda"])
def test_sharded_weights_are_refused(method: str, tmp_path: Path) -> None:
    """The gradients of a shard cannot be computed twice; the sum needs no second pass."""
    sharded: Any = SimpleNamespace(distributed_type=DistributedType.FSDP)
    whole: Any = SimpleNamespace(distributed_type=DistributedType.NO)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        part = torch.nn.Parameter(distribute_tensor(torch.ones(2), init_device_mesh("cpu", (1,))))
        for accelerator, weights in ((sharded, []), (whole, [part])):
            ConflictingGradients("sum", weights, accelerator)
            with pytest.raises(TrainingError, match="sharded weights"):
                ConflictingGradients(method, weights, accelerator)
    finally:
        torch.distributed.destroy_process_group()


def update(
    folder: Path, method: str, passes: int = 1, scale: float | None = None
) -> tuple[Gradients, dict[str, float]]:
    """The gradients of one update of four samples, and its metrics."""
    loop = LoopConfig(max_train_steps=1, train_batch_size=4 // passes, gradient_accumulation_steps=passes)
    optimizer = OptimizerConfig(max_grad_norm=1e9, combine=method)  # pyright: ignore[reportArgumentType]
    step = make_step(losses=LossConfig.only(identity="0.5@1"), unet=ONE_LEVEL)
    made = Loop(step, OneByOne(4 // passes), folder, loop, optimizer, make_accelerator(loop, folder))
    if scale is not None:  # as with fp16, which CPUs do not support
        made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)  # pyright: ignore
    found: Gradients = []
    made._apply = lambda norm: found.extend(weight.grad.clone() for weight in made.parameters)  # pyright: ignore
    metrics = made.update(iter(made.batches))
    return [gradient / (scale or 1) for gradient in found], metrics


def test_an_update_is_the_combination_whatever_its_passes_and_its_scaler(tmp_path: Path) -> None:
    whole, metrics = update(tmp_path, "sum")
    assert "gradients/cosine" not in metrics
    step = make_step(losses=LossConfig.only(identity="0.5@1"), unet=ONE_LEVEL)
    batch = next(iter(OneByOne(4)))
    loop = LoopConfig(train_batch_size=4)
    random = Loop(step, OneByOne(4), tmp_path, loop, OptimizerConfig(), make_accelerator(loop, tmp_path))._random(0, 4)
    with step:
        found: Weighted = step(batch, random)
        assert found.identity is not None
        weights = [weight for weight in step.parameters() if weight.requires_grad]
        parts = torch.autograd.grad(found.identity.mean(), weights, allow_unused=True)
    a = torch.cat(
        [torch.zeros_like(w).flatten() if p is None else p.flatten() for p, w in zip(parts, weights, strict=True)]
    )
    b = torch.cat([gradient.flatten() for gradient in whole]) - a
    for name, method, passes, scale in (("pcgrad", pcgrad, 4, None), ("mgda", mgda, 1, 1024.0)):
        gradients, metrics = update(tmp_path, name, passes, scale)
        got = torch.cat([gradient.flatten() for gradient in gradients])
        torch.testing.assert_close(got, combined(method, a, b), rtol=1e-3, atol=1e-3 * float(got.abs().max()))
        assert metrics["gradients/cosine"] == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-3)
        assert {"gradients/identity", "gradients/others"} <= metrics.keys()


def test_where_one_gradient_is_zero_or_not_finite_the_sum_stays() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    for factor in (0.0, float("inf"), float("nan")):
        gradients = ConflictingGradients("mgda", [weight], Accelerator(cpu=True))
        gradients.add((factor * weight.sum()).expand(2))
        weight.grad = torch.tensor([1.0, 2.0]) + (factor if factor else 0)
        before = weight.grad.clone()
        gradients.combine()
        torch.testing.assert_close(weight.grad, before, equal_nan=True)


def test_what_has_one_kind_of_loss_is_refused(tmp_path: Path) -> None:
    loop = LoopConfig(max_train_steps=1, train_batch_size=2)
    step = make_step(unet=ONE_LEVEL)
    made = Loop(
        step, RandomPeople(2), tmp_path, loop, OptimizerConfig(combine="mgda"), make_accelerator(loop, tmp_path)
    )
    with pytest.raises(TrainingError, match="combine=mgda needs two kinds of losses"):
        made.run()
    flags = ["--train_data_dir", "a", "--output_dir", "b", "--rollout.method", "grpo", "--optimizer.combine", "pcgrad"]
    with pytest.raises(TrainingError, match="grpo has one loss"):
        parse("reward", flags, "idgen")
