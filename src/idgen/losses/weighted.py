"""Weighted sums of losses or rewards: weights, gates on timesteps, samples without a face, and logs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import nn

from ..errors import LossError
from .centred import relative_to
from .inputs import Inputs
from .parametrisation import at_least_float32
from .term import WHO, Term, parameters

OverPeople: TypeAlias = Literal["mean", "least"]
"""How the values of several people in a picture become one."""
KNOWN = "known"
"""Input, (batch, people) of booleans: which faces of a picture are people of the data. Without it, each picture shows
one face."""
HAS_IDENTITY = "has_identity"
"""Input, (batch,) of booleans: False where the identity was dropped, so that terms comparing with the person are 0."""
RELIABILITY = "reliability"
"""Input, (batch,) in [0, 1]: a factor on terms that compare with the person."""
COUNTS = "counts"
"""Parameter of a loss that pools samples: a mask of the samples that count."""


class TermLog(NamedTuple):
    """Log of one term in one step, as sums that can be added over processes and accumulated steps.

    Attributes:
        sum: Sum of its values over the samples that counted, without weight and gate.
        samples: Number of samples that counted.
        invalid: Number of samples left out because a face is missing. Samples whose identity was dropped are not
            included.
    """

    sum: torch.Tensor
    samples: torch.Tensor
    invalid: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """Mean over the samples that counted; NaN if there are none."""
        return self.sum / self.samples


class Weighted(NamedTuple):
    """A weighted sum and the logs of its terms.

    Attributes:
        values: (batch,), the weighted sum for each sample.
        terms: Log of each term.
        identity: (batch,), the part of `values` from terms with `of_identity`; None if that is all of it or nothing.
    """

    values: torch.Tensor
    terms: dict[str, TermLog]
    identity: torch.Tensor | None = None

    @property
    def total(self) -> torch.Tensor:
        """Mean over the batch, samples without a face included. So a face has the same weight in every step, and the
        gradients of processes and accumulated steps add up to that of one large batch."""
        return self.values.mean()


@dataclass(frozen=True, eq=False)
class WeightedTerms:
    """A weighted sum of named terms.

    With the input `known`, pictures show several people: what a term returns for each face becomes one value for each
    picture. A face that was not found counts as 0.

    Attributes:
        terms: Name → `Term`, or the tuple of its fields.
        over_people: Whether the value of a picture is the mean over its people, or the least.

    Raises:
        LossError: There is no term, a weight is not finite, or a function has *args or **kwargs.

    Example:
        >>> losses = WeightedTerms({
        ...     "denoising": Term(DenoisingLoss(parametrisation, snr_gamma=5.0)),
        ...     "identity": Term(identity_loss, 0.1, UpTo(0.6), "face_found"),
        ... })
        >>> losses(inputs, timesteps).total.backward()
    """

    terms: Mapping[str, Term]
    over_people: OverPeople = "mean"

    def __post_init__(self) -> None:
        if not self.terms:
            raise LossError("A weighted sum needs at least one term.")
        object.__setattr__(self, "terms", {name: Term(*term) for name, term in self.terms.items()})
        for name, term in self.terms.items():
            if not math.isfinite(term.weight):
                raise LossError(f"The weight of '{name}' must be a finite number, not {term.weight}.")
            kinds = {p.kind for p in parameters(term.function).values()}
            if not kinds <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
                raise LossError(f"'{name}' must name each input that it reads: no *args, no **kwargs.")

    def reads(self) -> set[str]:
        """Names of all inputs that a term reads."""
        return {name for term in self.terms.values() for name in parameters(term.function)} - {COUNTS}

    def gates(self, timesteps: torch.Tensor) -> dict[str, torch.Tensor]:
        """Factors of each term with a gate: name → (batch,)."""
        return {name: term.gate(timesteps) for name, term in self.terms.items() if term.gate is not None}

    def __call__(self, inputs: Mapping[str, Any], timesteps: torch.Tensor | None = None) -> Weighted:
        """Evaluate all terms whose gate is open for any sample.

        Args:
            inputs: Inputs of the terms by name. With `has_identity`, (batch,) of booleans, a term that compares with
                the person is 0 where it is False. With `reliability`, (batch,), such a term is multiplied by it.
            timesteps: (batch,); required if a term has a gate.

        Raises:
            LossError: An input is missing, timesteps are missing, or a term does not return one value per sample.
        """
        if timesteps is None and any(term.gate is not None for term in self.terms.values()):
            raise LossError("Terms with a gate need the timesteps.")
        gates = self.gates(timesteps) if timesteps is not None else {}
        values, identity, logs = None, None, {}
        known = inputs.get(KNOWN)
        for name, term in self.terms.items():
            gate = gates.get(name)
            if gate is not None and not gate.any():
                nothing = gate.new_zeros(())
                logs[name] = TermLog(nothing, nothing, nothing)
                continue
            several = known if term.of_faces else None
            gate = gate if gate is None or several is None else gate.repeat_interleave(several.shape[1])
            seen = inputs if term.encoder is None or not isinstance(inputs, Inputs) else inputs.by(term.encoder)
            gate = _with_reliability(term, gate, seen)
            wanted, valid = _wanted(term, gate, seen), _valid(name, term, seen)
            wanted = wanted if several is None else _both(wanted, several.flatten())
            found = self._evaluate(name, term, seen, _both(wanted, valid))
            counted, logs[name] = _count(term, found, gate, wanted, valid)
            counted = counted if several is None else self._of_pictures(counted, several.to(counted.device))
            if values is not None and counted.shape != values.shape:
                raise LossError(f"'{name}' returned {len(found)} values, the terms before it {len(values)}.")
            values = counted if values is None else values + counted.to(values.device)
            if term.of_identity:
                identity = counted if identity is None else identity + counted.to(identity.device)
        if values is None:
            assert timesteps is not None
            values = torch.zeros(len(timesteps), device=timesteps.device)
        if len({term.of_identity for term in self.terms.values()}) == 1:
            return Weighted(values, logs)
        return Weighted(values, logs, torch.zeros_like(values) if identity is None else identity)

    def _of_pictures(self, of_faces: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """(faces,) and (batch, people) → (batch,); 0 for a picture of nobody."""
        by_picture = of_faces.unflatten(0, known.shape)
        if self.over_people == "mean":
            return (by_picture * known).sum(1) / known.sum(1).clamp(min=1)
        return torch.where(known.any(1), by_picture.masked_fill(~known, torch.inf).amin(1), 0)

    def _evaluate(self, name: str, term: Term, inputs: Mapping[str, Any], counts: torch.Tensor | None) -> torch.Tensor:
        expected = dict(parameters(term.function))
        pools = expected.pop(COUNTS, None) is not None
        missing = [p for p, info in expected.items() if info.default is info.empty and p not in inputs]
        if missing:
            raise LossError(f"'{name}' reads {missing}; available are {sorted(inputs)}.")
        arguments = {p: inputs[p] for p in expected if p in inputs}
        if term.centre is not None:
            arguments = relative_to(term.centre, arguments)
        found = torch.as_tensor(term.function(**arguments, **({COUNTS: counts} if pools else {})))
        if found.ndim != 1:
            raise LossError(f"'{name}' must return one value per sample, (batch,), not {tuple(found.shape)}.")
        return at_least_float32(found)


def learned_parts(losses: WeightedTerms) -> nn.ModuleDict:
    """The trainable modules of losses, by the name of the loss: the function itself, or its attribute `learned`."""
    found = {}
    for name, term in losses.terms.items():
        part = term.function if isinstance(term.function, nn.Module) else getattr(term.function, "learned", None)
        if isinstance(part, nn.Module) and any(weight.requires_grad for weight in part.parameters()):
            found[name] = part
    return nn.ModuleDict(found)


def _valid(name: str, term: Term, inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Mask of the samples that the term is valid for, (batch,) of booleans; None for all."""
    if term.valid is None:
        return None
    if term.valid not in inputs:
        raise LossError(f"'{name}' is masked by '{term.valid}'; available are {sorted(inputs)}.")
    return inputs[term.valid]


def _with_reliability(term: Term, gate: torch.Tensor | None, inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """The gate's factors, multiplied by the reliability of the pairs for a term that compares with the person."""
    if RELIABILITY not in inputs or not WHO & parameters(term.function).keys():
        return gate
    reliability = inputs[RELIABILITY]
    return reliability if gate is None else gate * reliability.to(gate.device)


def _wanted(term: Term, gate: torch.Tensor | None, inputs: Mapping[str, Any]) -> torch.Tensor | None:
    """Mask of the samples where the gate is open and, for a term that compares with the person, the identity was not
    dropped; (batch,) of booleans, None for all."""
    compares = HAS_IDENTITY in inputs and WHO & parameters(term.function).keys()
    return _both(None if gate is None else gate > 0, inputs[HAS_IDENTITY] if compares else None)


def _both(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    """The conjunction of two masks; None is True everywhere."""
    if a is None or b is None:
        return b if a is None else a
    return a.to(b.device) & b


def _count(
    term: Term,
    found: torch.Tensor,
    gate: torch.Tensor | None,
    wanted: torch.Tensor | None,
    valid: torch.Tensor | None,
) -> tuple[torch.Tensor, TermLog]:
    """The addend of a term, (batch,), and its log."""
    every = torch.ones_like(found, dtype=torch.bool)
    wanted = every if wanted is None else wanted.to(found.device)
    valid = every if valid is None else valid.to(found.device)
    found = torch.where(wanted & valid, found, 0)
    log = TermLog(found.detach().sum(), (wanted & valid).sum(), (wanted & ~valid).sum())
    return term.weight * found * (1 if gate is None else gate.to(found.device)), log
