"""Batches of several people: rows that fill a batch, and the order of people, change nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from idgen.data.group_dataset import NOBODY
from idgen.data.people_options import PeopleOptions
from idgen.errors import DataError
from idgen.losses import LOSSES, LossConfig, Weight
from idgen.training.batch import OF_PICTURES, Batch
from idgen.training.faces import face_mask
from idgen.training.trainable import with_places
from tests.components import make_adapter, make_unet, seeded

from .runs import POINTS, RandomPeople, make_step, run

COMPARED = {
    *("denoising", "identity", "contrastive", "triplet", "prototype", "background", "localisation", "increment"),
    *("correspondence", "disentanglement", "in_box", "words", "values"),
}
LOSSES_OF_ALL = LossConfig(
    weights={name: Weight(0.1 if name in COMPARED else 0) for name in LOSSES.rows},
    background_weight=0.5,
    prior_dir="generated",
)


def make_group_step(masks: Any) -> Any:
    prior = torch.randn(5, 128, generator=seeded(9))
    return make_step(losses=LOSSES_OF_ALL, words=2, prior=prior, masks=masks, adapter={"max_people": 3})


def make_batch(people: int) -> Batch:
    """Two pictures, of the same first people for any number of people, with a face at each side."""
    three = RandomPeople(6, prompt="a <id> and <id>").make(0)
    moved = torch.stack([POINTS + torch.tensor([shift, 0.0]) for shift in (-6.0, 6.0, 0.0)] * 2)
    three = replace(three, landmarks=moved, face_found=torch.ones(6, dtype=torch.bool))
    rows = torch.arange(6).view(2, 3)[:, :people].flatten()
    faces = {name: value[rows] for name, value in three._tensors().items() if name not in OF_PICTURES}
    return replace(three, **faces, latents=three.latents[:2], prompts=three.prompts[:2], people=people)


def rearranged(batch: Batch, rows: list[int], people: int) -> Batch:
    """The same pictures with these rows of faces; -1 is nobody."""
    index, nobody = torch.tensor(rows).clamp(min=0), torch.tensor(rows) < 0
    faces = {name: value[index] for name, value in batch._tensors().items() if name not in OF_PICTURES}
    for name in ("id_embeds", "target_embeds"):
        faces[name] = faces[name].masked_fill(nobody[:, None], 0)
    faces |= {name: faces[name] & ~nobody for name in ("face_found", "has_identity")}
    return replace(batch, **faces | {"persons": faces["persons"].masked_fill(nobody, NOBODY)}, people=people)


@pytest.mark.parametrize("masks", ["boxes", "none"])
def test_rows_of_nobody_and_the_order_of_people_change_nothing(masks: str) -> None:
    # each <id> of a prompt stands for the next person
    step, batch = make_group_step(masks), replace(make_batch(2), prompts=("a face",) * 2)
    expected = run(step, batch)
    gradients = [weight.grad.clone() for weight in step.parameters()]
    assert expected.values.isfinite().all()
    assert any(gradient.any() for gradient in gradients)
    step.zero_grad()
    found = run(step, rearranged(batch, [1, 0, -1, 3, 2, -1], 3))
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-5)
    for name, term in expected.terms.items():
        assert found.terms[name].mean.item() == pytest.approx(term.mean.item(), rel=1e-3, abs=1e-5), name
    for weight, gradient in zip(step.parameters(), gradients, strict=True):
        assert (weight.grad - gradient).norm() <= 1e-3 * gradient.norm() + 1e-5


def test_one_person_per_picture_without_masks_is_a_batch_of_single_people() -> None:
    """Bit for bit with one row, and also with a second row of nobody: training changes nothing of single people."""
    step, single = make_group_step("none"), replace(make_batch(1), prompts=("a <id>",) * 2)
    expected = run(step, single)
    found = run(step, rearranged(single, [0, -1, 1, -1], 2))
    torch.testing.assert_close(found.values, expected.values, rtol=1e-4, atol=1e-5)
    assert torch.equal(run(make_group_step("boxes"), single).values, expected.values)


def test_places_of_further_people_keep_what_the_others_learned() -> None:
    """Two places become four; the adapter draws two people as before."""
    adapter = with_places(make_adapter(make_unet()), 2)
    assert adapter.places is not None
    torch.nn.init.normal_(adapter.places.weight)
    wider = with_places(adapter.requires_grad_(False), 4)
    assert wider.places is not None
    assert torch.equal(wider.places.weight[:2], adapter.places.weight)
    assert not wider.places.weight[2:].any()
    assert not any(weight.requires_grad for weight in wider.parameters())
    assert (wider.config["max_people"], with_places(wider, 2).config["max_people"]) == (4, 4)
    wider.set_fusion("ortho", 3)
    copied = with_places(wider, 2)
    assert (copied.config["ortho"], copied.config["num_zero"]) == ("ortho", 3)


def test_masks_are_boxes_around_faces() -> None:
    step, batch = make_group_step("boxes"), rearranged(make_batch(2), [0, 1, -1, 2, 3, -1], 3)
    masks, soft = step.person_masks(batch), step.person_masks(batch, soft=True)
    assert masks.shape == soft.shape == (2, 3, *batch.latents.shape[-2:])
    assert not masks[:, 2].any()
    assert (soft[masks > 0] == 1).all()
    assert ((soft > 0) & (soft < 1)).any()
    assert torch.equal(masks[0, :1], face_mask(batch.landmarks[:1] / 2, batch.face_found[:1], *masks.shape[-2:])[0])
    assert step.places(make_batch(1)) == {}
    drawn = step._keypoints(batch)[0].amax(0)
    x, y = batch.landmarks[:2].round().long().unbind(-1)
    assert drawn[y, x].all()  # of both people
    assert not step._keypoints(rearranged(make_batch(2), [-1, -1, 2, 3], 2))[0].any()
    repeated = batch.repeat(2)
    assert repeated.persons.tolist() == [*batch.persons[:3].tolist() * 2, *batch.persons[3:].tolist() * 2]
    assert len(repeated) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [({"count": (0, 2)}, "1 to 4"), ({"count": (3, 2)}, "ascending"), ({"overlap": 0.9}, "overlap"),
     ({"composites": 2.0}, "composites")],
)  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        PeopleOptions(**options)
