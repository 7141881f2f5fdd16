"""Weights, gates, samples without a face, logs."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from idgen.errors import LossError
from idgen.losses import Between, Decay, Inputs, Parametrisation, SignalPower, Term, UpTo, WeightedTerms

TIMESTEPS = torch.tensor([0, 599, 600, 601, 999])
X = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])


def plain(x: torch.Tensor) -> torch.Tensor:
    return x


def square(x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return scale * x.square()


def test_gates() -> None:
    assert UpTo(0.6)(TIMESTEPS).tolist() == [1, 1, 1, 0, 0]
    assert UpTo(0.0)(TIMESTEPS).tolist() == [1, 0, 0, 0, 0]
    torch.testing.assert_close(Decay()(TIMESTEPS), torch.tensor([1, 0.401**2, 0.4**2, 0.399**2, 0.001**2]))
    schedule = Parametrisation.of(DDIMScheduler())
    torch.testing.assert_close(SignalPower(schedule, 0.5)(TIMESTEPS), schedule.alphas_cumprod[TIMESTEPS].sqrt())
    for nonsense in (lambda: UpTo(1.2), lambda: Decay(0), lambda: SignalPower(schedule, -1), lambda: UpTo(0.5, 0)):
        with pytest.raises(LossError):
            nonsense()


@pytest.mark.parametrize("steps", [1000, 40, 7])
def test_windows_that_follow_each_other_hold_each_timestep_once(steps: int) -> None:
    timesteps = torch.arange(steps)
    for ends in ((0.0, 1.0), (0.0, 0.29, 1.0), (0.0, 0.07, 0.14, 0.57, 0.58, 1.0)):
        windows = [Between(a, b, steps)(timesteps) for a, b in pairwise(ends)]
        assert torch.equal(torch.stack(windows).sum(0), torch.ones(steps))
        assert all(torch.equal(UpTo(b, steps)(timesteps), Between(0, b, steps)(timesteps)) for b in ends[1:])
    for a, b in ((0.5, 0.5), (0.6, 0.5), (-0.1, 0.5), (0.5, 1.1)):
        with pytest.raises(LossError, match="A window needs"):
            Between(a, b)


def test_the_sum_of_weighted_gated_terms() -> None:
    losses = WeightedTerms({"plain": Term(plain, 2.0), "square": (square, 0.1, UpTo(0.6), "face_found")})  # pyright: ignore
    found = torch.tensor([True, False, True, True, False])
    out = losses({"x": X, "face_found": found}, TIMESTEPS)
    assert out.values.tolist() == pytest.approx([2 + 0.1, 4, 6 + 0.9, 8, 10])
    assert out.total.item() == pytest.approx(sum([2.1, 4, 6.9, 8, 10]) / 5)
    assert [int(n) for n in out.terms["square"]] == [10, 2, 1]  # two counted, and one more had had a face been found
    assert out.terms["square"].mean == 5
    assert [int(n) for n in out.terms["plain"]] == [15, 5, 0]


def test_gradients_of_two_halves_add_up_to_that_of_the_whole() -> None:
    """Whatever the faces: the denominator is the batch."""
    losses = WeightedTerms({"square": Term(square, 0.3, Decay(), "face_found")})
    found = torch.tensor([True, False, False, True])

    def gradient(rows: slice) -> torch.Tensor:
        x = X[:4].clone().requires_grad_(True)
        losses({"x": x[rows], "face_found": found[rows]}, TIMESTEPS[:4][rows]).total.backward()
        assert x.grad is not None
        return x.grad

    torch.testing.assert_close((gradient(slice(0, 2)) + gradient(slice(2, 4))) / 2, gradient(slice(0, 4)))


def test_masked_values_have_no_gradient() -> None:
    x = torch.tensor([1.0, torch.inf, torch.nan], requires_grad=True)
    out = WeightedTerms({"plain": Term(plain, valid="ok")})({"x": x, "ok": torch.tensor([True, False, False])})
    out.total.backward()
    assert out.values.tolist() == [1, 0, 0]
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([1 / 3, 0, 0])


def test_nothing_is_computed_for_closed_gates() -> None:
    made = []

    class Decoded(Inputs):
        def __init__(self) -> None:
            self.scale, self._private = 2.0, None

        @cached_property
        def x(self) -> torch.Tensor:
            made.append(1)
            return X

    inputs = Decoded()
    losses = WeightedTerms({"square": Term(square, gate=UpTo(0.5))})
    out = losses(inputs, torch.tensor([700, 800, 900, 999, 501]))
    assert not made
    assert out.values.tolist() == [0] * 5
    assert out.terms["square"].samples == 0
    assert out.terms["square"].mean.isnan()
    both = WeightedTerms({"a": Term(square, gate=UpTo(0.5)), "b": Term(plain)})
    assert both(inputs, TIMESTEPS).values.tolist() == [3, 2, 3, 4, 5]
    assert len(made) == 1  # once for both terms
    assert sorted(inputs) == ["scale", "x"]
    assert len(inputs) == 2
    assert "_private" not in inputs
    with pytest.raises(KeyError):
        inputs["get"]
    assert both.gates(TIMESTEPS)["a"].tolist() == [1, 0, 0, 0, 0]


def test_modules_arrays_lists_and_half_precision() -> None:
    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.bfloat16()

    terms = {"module": Term(Module()), "array": Term(lambda x: x.numpy()), "list": Term(lambda x: x.int().tolist())}
    out = WeightedTerms(terms)({"x": X})
    assert out.values.dtype == torch.float32
    assert out.values.tolist() == [3, 6, 9, 12, 15]


def test_a_batch_of_one() -> None:
    out = WeightedTerms({"plain": Term(plain, 0.5, Decay())})({"x": X[:1]}, TIMESTEPS[:1])
    assert out.total == 0.5


@pytest.mark.parametrize(
    ("terms", "inputs", "message"),
    [
        ({}, {}, "at least one"),
        ({"a": Term(plain, float("nan"))}, {"x": X}, "finite"),
        ({"a": Term(lambda *x: x)}, {"x": X}, "must name"),
        ({"a": Term(plain)}, {"y": X}, r"'a' reads \['x'\]"),
        ({"a": Term(plain, valid="face_found")}, {"x": X}, "face_found"),
        ({"a": Term(plain, gate=Decay())}, {"x": X}, "timesteps"),
        ({"a": Term(lambda x: x.mean())}, {"x": X}, "one value per sample"),
        ({"a": Term(plain), "b": Term(lambda x: x[:2])}, {"x": X}, "returned 2 values"),
    ],
)
def test_what_is_refused(terms: dict, inputs: dict, message: str) -> None:
    with pytest.raises(LossError, match=message):
        WeightedTerms(terms)(inputs)


def test_pairs_count_by_their_reliability() -> None:
    """Of terms that compare with the person, and not of others; the log has the values without it."""

    def likeness(target_embeds: torch.Tensor) -> torch.Tensor:
        return target_embeds.sum(1)

    terms = WeightedTerms({"likeness": Term(likeness, 2.0, UpTo(0.6)), "plain": Term(plain)})
    inputs = {"target_embeds": X[:, None], "x": X}
    share = torch.tensor([1.0, 0.5, 0.0, 0.5, 1.0])
    found = terms(inputs | {"reliability": share}, TIMESTEPS)
    assert found.values.tolist() == [1 + 2, 2 + 2, 3, 4, 5]
    assert (float(found.terms["likeness"].sum), int(found.terms["likeness"].samples)) == (3, 2)
    everywhere = inputs | {"reliability": torch.ones(5)}
    assert torch.equal(terms(everywhere, TIMESTEPS).values, terms(inputs, TIMESTEPS).values)
