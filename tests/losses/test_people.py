"""Several people in a picture: losses on attention, and losses of faces as losses of pictures, in numbers."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch

from idgen.errors import LossError
from idgen.faces import DlibDetector
from idgen.losses import (
    Bank,
    ContrastiveLoss,
    DisentanglementLoss,
    FaceEmbedder,
    LayerRecord,
    Term,
    WeightedTerms,
    correspondence_loss,
    find_people,
    identity_loss,
    in_box_loss,
)
from idgen.losses.weighted import OverPeople

SHARES = [0.1, 0.2, 0.3, 0.4]
"""Attention of the first person to four positions; the second attends to all of them alike."""


def recorded(together: bool) -> dict[str, LayerRecord]:
    """A layer of 2 × 2 positions and one head of one number, where `softmax(k q)` are the shares for k = 1."""
    keys = [torch.full((1, 1, 2, 1), k, dtype=torch.float64) for k in (1.0, 0.0)]
    query = torch.tensor(SHARES).double().log().view(1, 4, 1)
    keys = [torch.cat(keys, 2)] if together else keys
    return {"attn2": LayerRecord(query, query, query, query, 1, keys)}


@pytest.mark.parametrize("together", [False, True], ids=["masks", "no masks"])
def test_attention_in_numbers(together: bool) -> None:
    record, both = recorded(together), torch.tensor([[True, True]])
    masks = torch.tensor([[[[1.0, 0], [1, 0]], [[0, 1], [0, 1]]]])  # the left and the right half
    assert in_box_loss(record, masks, both).item() == pytest.approx((0.6 + 0.5) / 2)
    points = torch.tensor([[0.2, 0.3], [1.5, 1.5]]).view(1, 2, 1, 2).expand(-1, -1, 5, -1)
    assert correspondence_loss(record, masks, points, both).item() == pytest.approx(-(log(0.1) + log(0.25)) / 2)
    kl = 0.1 * log(0.4) + 0.2 * log(0.8) + 0.3 * log(1.2) + 0.4 * log(1.6)
    reverse = -(log(0.4) + log(0.8) + log(1.2) + log(1.6)) / 4
    assert DisentanglementLoss("kl")(record, both).item() == pytest.approx(-(kl + reverse) / 2)
    middle = [(share + 0.25) / 2 for share in SHARES]
    js = sum(a * log(a / m) + 0.25 * log(0.25 / m) for a, m in zip(SHARES, middle, strict=True)) / 2
    assert DisentanglementLoss()(record, both).item() == pytest.approx(-js)
    alone = torch.tensor([[True, False]])
    assert in_box_loss(record, masks, alone).item() == pytest.approx(0.6)
    assert correspondence_loss(record, masks, points, alone).item() == pytest.approx(-log(0.1))
    assert DisentanglementLoss()(record, alone).item() == 0
    assert in_box_loss(record, masks, ~(alone | both)).item() == 0
    assert in_box_loss({}, masks, both).tolist() == [0]
    with pytest.raises(LossError, match="4 tokens, which are not those of 3 people"):
        in_box_loss(record, masks.repeat(1, 2, 1, 1)[:, :3], torch.ones(1, 3) > 0)


def test_disentanglement_is_bounded_where_people_do_not_overlap() -> None:
    """At log 2, for Jensen-Shannon; no position without attention is a problem."""
    query = torch.tensor([[[200.0], [-200.0]]])
    record = {"attn2": LayerRecord(query, query, query, query, 1, [torch.ones(1, 1, 1, 1), -torch.ones(1, 1, 1, 1)])}
    both = torch.tensor([[True, True]])
    assert DisentanglementLoss()(record, both).item() == pytest.approx(-log(2), abs=1e-5)
    assert DisentanglementLoss("kl")(record, both).isfinite().all()


@pytest.mark.parametrize(("over", "expected"), [("mean", [2 * 0.4, 2 * 0.9]), ("least", [2 * 0.0, 2 * 0.9])])
def test_a_picture_has_the_mean_or_the_least_of_its_people(over: OverPeople, expected: list[float]) -> None:
    """The second person of the first picture has no face, the second row of the second picture is nobody."""
    terms = WeightedTerms(
        {
            "identity": Term(lambda generated_embeds: generated_embeds[:, 0], 2.0, None, "face_found"),
            "denoising": Term(lambda latents: latents, 1.0),
        },
        over,
    )
    inputs: dict[str, Any] = {
        "generated_embeds": torch.tensor([[0.8], [0.7], [0.9], [5.0]]),
        "face_found": torch.tensor([True, False, True, False]),
        "known": torch.tensor([[True, True], [True, False]]),
        "latents": torch.tensor([10.0, 20.0]),
    }
    found = terms(inputs)
    assert found.values.tolist() == pytest.approx([10 + expected[0], 20 + expected[1]])
    assert found.terms["identity"].samples == 2
    gated = terms.terms["identity"]._replace(gate=lambda t: (t < 500).float())
    late = WeightedTerms({"identity": gated}, over)(inputs, torch.tensor([900, 100]))
    assert late.values.tolist() == pytest.approx([0, expected[1]])


def test_the_other_people_of_a_picture_are_negatives() -> None:
    """A face that is like the other person costs more than one that is like nobody."""
    targets, persons = torch.eye(3)[:2], torch.tensor([4, 7])
    bank = Bank(targets, persons)
    loss = ContrastiveLoss(temperature=0.5)
    right, swapped = loss(targets, targets, persons, bank), loss(targets.flip(0), targets, persons, bank)
    nobody = loss(torch.eye(3)[[2, 2]], targets, persons, bank)
    assert (swapped > nobody).all()
    assert (nobody > right).all()
    assert (identity_loss(targets.flip(0), targets) == identity_loss(torch.eye(3)[[2, 2]], targets)).all()


def test_faces_are_assigned_to_the_people_whom_they_resemble(astronaut: Any) -> None:
    """Whatever the order of the people; a person who is nobody gets no face."""
    face = torch.from_numpy(astronaut[20:220, 140:320].copy()).permute(2, 0, 1)[None] / 255  # of about 110 px
    picture, embedder = torch.cat([face, face.flip(3) * 0.8], 3), FaceEmbedder.dlib()
    found = sorted(
        DlibDetector().detect((picture[0].permute(1, 2, 0) * 255).round().byte().numpy()), key=lambda f: f.box[0]
    )
    assert len(found) == 2
    points = torch.stack([torch.from_numpy(each.landmarks) for each in found])
    with torch.no_grad():
        left, right = embedder(picture.expand(2, -1, -1, -1), points)
    for people, wanted, places in (
        ([right, left, left], [True, True, False], [1, 0]),
        ([left, left, right], [False, True, True], [0, 1]),
    ):
        faces = find_people(picture, DlibDetector(), embedder, torch.stack(people), torch.tensor(wanted))
        assert faces.found.tolist() == wanted
        torch.testing.assert_close(faces.points[faces.found], points[places].to(faces.points), atol=1, rtol=0)
        assert faces.points.isfinite().all()
