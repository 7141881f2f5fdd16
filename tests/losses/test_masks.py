"""For every loss: the values of a masked sample do not change the value or gradient of other samples."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from idgen.losses import LOSSES, Bank, LayerRecord, LossConfig, Parametrisation, Weight, WeightedTerms, make_losses
from idgen.losses.style import fit_styles
from idgen.losses.term import WHO, parameters

from .inputs import normal, recording

TERMS = make_losses(
    LossConfig(
        weights={name: Weight(1.0, row.window and 0.6) for name, row in LOSSES.rows.items()},
        prior_dir="pictures",
        older_adapter="adapter",
        styles=("pictures",),
        background_weight=0.5,
        margin=1.0,  # settings for people whose cosines lie about 0
        positive_threshold=0.9,
        negative_threshold=0.0,
        temperature=0.1,
    ),
    Parametrisation.of(DDIMScheduler()),
    centres=lambda: normal(8, 8, seed=7),
    groups=lambda: torch.tensor([0, 0, 1, 1, 0, 1, 1, -1]),
    styles=lambda: fit_styles([normal(3, 4, 4, 4, seed=8), normal(5, 4, 4, 4, seed=9)]),
).terms
EARLY, LATE = 100, 900
"""Timesteps at which the gate of losses on faces is open, and shut."""


def inputs(seed: int) -> dict[str, Any]:
    """Of two samples: all that any loss reads, but the mask and the timesteps."""
    pictures = ("model_output", "latents", "noisy_latents", "noise", "output_without_id", "output_mixed_id")
    pictures += ("predicted_latents", "latents_without_id")
    faces = ("generated_embeds", "target_embeds", "prior_embeds", "older_embeds")
    recordings = ("with_id", "without_id", "with_id", "edited", "without_id", "edited_without_id")
    return {
        **{name: normal(2, 4, 4, 4, seed=100 * seed + i) for i, name in enumerate(pictures)},
        **{name: normal(2, 8, seed=100 * seed + 10 + i) for i, name in enumerate(faces)},
        **{name: recording(100 * seed + 20 + i) for i, name in enumerate(recordings)},
        "persons": torch.tensor([3, 5 + seed]),
        "negatives": Bank(normal(2, 6, 8, seed=100 * seed + 30), torch.tensor([[1, 3, 4, 5, 6, 7]] * 2)),
        "face_mask": normal(2, 1, 4, 4, seed=100 * seed + 31).sigmoid(),
        "token_masks": normal(2, 2, 4, 4, seed=100 * seed + 32).sigmoid(),
        "token_positions": torch.tensor([[0, 2], [1, 2]]),
        "person_masks": normal(2, 2, 4, 4, seed=100 * seed + 47).sigmoid(),
        "person_landmarks": 4 * normal(2, 2, 5, 2, seed=100 * seed + 48).sigmoid(),
        "people": torch.ones(2, 2, dtype=torch.bool),
        "pseudo_words": normal(2, 3, 4, seed=100 * seed + 33),
        "generated_features": both(2, 3, 4, 4, seed=100 * seed + 36),
        "target_features": both(2, 3, 4, 4, seed=100 * seed + 38),
        "generated_patches": normal(2, 4, 3, 2, 2, seed=100 * seed + 40),
        "target_patches": normal(2, 4, 3, 2, 2, seed=100 * seed + 41),
        "generated_halves": both(2, 8, seed=100 * seed + 42),
        "frontality": normal(2, seed=100 * seed + 44).sigmoid(),
        "token_offsets": normal(2, 6, 4, seed=100 * seed + 45),
        "group_offsets": normal(2, 3, 4, seed=46),  # of groups, not of samples
        "identity_values": [normal(2, 3, 4, seed=100 * seed + 34), normal(2, 3, 8, seed=100 * seed + 35)],
    }


def both(*shape: int, seed: int) -> list[torch.Tensor]:
    """Of two layers or halves."""
    return [normal(*shape, seed=seed), normal(*shape, seed=seed + 50)]


def splice(first: Any, second: Any) -> Any:
    """The first sample of one, and the second of the other."""
    if isinstance(first, torch.Tensor):
        return torch.cat([first[:1], second[1:]])
    if isinstance(first, dict):
        return {key: splice(value, second[key]) for key, value in first.items()}
    if isinstance(first, LayerRecord):
        names = [field.name for field in fields(first)]
        return LayerRecord(**{name: splice(getattr(first, name), getattr(second, name)) for name in names})
    if isinstance(first, Bank):
        return Bank(*map(splice, first, second))
    return list(map(splice, first, second)) if isinstance(first, list) else first


def leaves(value: Any) -> list[torch.Tensor]:
    """The numbers that a gradient may go to."""
    if isinstance(value, torch.Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, LayerRecord):
        value = [getattr(value, field.name) for field in fields(value)]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [leaf for part in parts for leaf in leaves(part)]


def evaluate(
    name: str, given: dict[str, Any], found: bool, known: bool, timestep: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Values and gradients where the second sample has a face or not, an identity or not, and its own timestep."""
    numbers = leaves(given)
    for leaf in numbers:
        leaf.requires_grad_(True)
    mask = {"face_found": torch.tensor([True, found]), "has_identity": torch.tensor([True, known])}
    timesteps = torch.tensor([EARLY, timestep])
    values = WeightedTerms({name: TERMS[name]})({**given, **mask, "timesteps": timesteps}, timesteps).values
    gradients = torch.autograd.grad(values.sum(), numbers, allow_unused=True)
    return values.detach(), [torch.zeros(2) if gradient is None else gradient for gradient in gradients]


def test_every_row_is_tested() -> None:
    assert {*TERMS} == {*LOSSES.rows}


@pytest.mark.parametrize(
    "why",
    [(False, True, EARLY), (True, False, EARLY), (True, True, LATE)],
    ids=["no face", "no identity", "gate shut"],
)
@pytest.mark.parametrize("name", TERMS)
def test_masked_samples_change_nothing(name: str, why: tuple[bool, bool, int]) -> None:
    values, gradients = evaluate(name, inputs(1), *why)
    changed, changed_gradients = evaluate(name, splice(inputs(1), inputs(2)), *why)
    assert values[0] != 0
    assert values[0] == changed[0]
    assert any(gradient[0].any() for gradient in gradients)
    for before, after in zip(gradients, changed_gradients, strict=True):
        assert torch.equal(before[0], after[0])
    compares = WHO & parameters(TERMS[name].function).keys()  # the symmetry of a face is that of anybody's
    found, known, timestep = why
    shut = timestep == LATE and TERMS[name].gate is not None
    if shut or (not found and TERMS[name].valid) or (not known and compares):
        assert values[1] == changed[1] == 0
        assert not any(gradient[1].any() for gradient in (*gradients, *changed_gradients))
