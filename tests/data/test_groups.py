"""Pictures with all their people, from photos and from composites."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idgen.data.composites import Tile, compose, tile_side
from idgen.data.framing import AlignedFraming, PhotoFraming
from idgen.data.group_dataset import NOBODY, UNKNOWN, GroupDataset, GroupSample, group_caption
from idgen.data.loader import PairedLoader
from idgen.data.pairing import Pairing
from idgen.data.people_options import PeopleOptions
from idgen.errors import DataError

PLAIN = Pairing(drop_text=0, drop_identity=0, drop_both=0, flip=0)


def tile(side: int, colour: int) -> Tile:
    points = np.array([[0.35, 0.4], [0.65, 0.4], [0.5, 0.55], [0.4, 0.7], [0.6, 0.7]]) * side
    return Tile(np.full((side, side, 3), colour, np.uint8), points)


@pytest.mark.parametrize("overlap", [0, 0.2])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_every_tile_is_where_its_landmarks_are(count: int, overlap: float) -> None:
    """For every canvas: all people are visible, and a person's pixels are around the person's landmarks."""
    for height, width, seed in ((64, 256, 0), (96, 96, 1), (128, 80, 2)):
        side = min(tile_side(height, width, count, overlap), 64)
        tiles = [tile(side, 10 * i + 100) for i in range(count)]
        found = compose(tiles, height, width, overlap, np.random.default_rng(seed))
        again = compose(tiles, height, width, overlap, np.random.default_rng(seed))
        assert np.array_equal(found.picture, again.picture)
        assert found.picture.shape == (height, width, 3)
        assert found.visible.all()
        for each, points in zip(tiles, found.landmarks, strict=True):
            x, y = points.mean(0).astype(int)
            assert (found.picture[y, x] == each.picture[0, 0]).all()
        assert (np.diff(found.landmarks[:, 0, 0]) > 0).all()


def test_who_is_covered_is_not_visible() -> None:
    found = compose([tile(64, 1), tile(64, 2)], 64, 80, 0.1, np.random.default_rng(0))
    assert found.visible.tolist() == [False, True]


def aligned(shards: str, **people: object) -> GroupDataset:
    options = PeopleOptions(**{"count": (2, 3), "overlap": 0, **people})  # pyright: ignore
    return GroupDataset(shards, framing=AlignedFraming(), pairing=PLAIN, people=options)


def test_composites_are_functions_of_seed_and_epoch(lfw_set: str) -> None:
    dataset = aligned(lfw_set)
    one, again, later = dataset[0, 3], aligned(lfw_set)[0, 3], dataset[1, 3]
    assert torch.equal(one.picture, again.picture)
    assert not torch.equal(one.picture, later.picture)
    assert one.picture.shape == (64, 192, 3)
    numbers, group, people = set(), one, []
    for item in range(12):
        group = dataset[item]
        people = [each.person for each in group.people]
        numbers.add(len(people))
        assert len(set(people)) == len(people)
        assert dataset.bank.person_of(np.array([dataset.photos[item][0]]))[0] in people
        assert group.prompt == group_caption(len(people))
        for each in group.people:
            points = each.landmarks.numpy()
            x, y = np.round(points.mean(0) - dataset.framing.template.mean(0)).astype(int)  # pyright: ignore
            own = dataset._tile(each.face, dataset.framing, np.random.default_rng(0)).picture
            assert np.array_equal(group.picture[max(y, 0) :, x : x + 64][:64].numpy(), own)
            assert (each.references != each.face).all() or dataset.bank.references[each.person] == 1
    assert numbers == {2, 3}
    rows = group.rows(3)
    assert [row.person for row in rows][len(people) :] == [NOBODY] * (3 - len(people))
    assert all(row.has_identity == (row.person >= 0) for row in rows)


def test_photos_hold_all_their_faces(lfw_set: str) -> None:
    """Every face of a photo is one of its people, or unknown; none of them is lost but outside of the picture."""
    people = PeopleOptions(count=(1, 2), composites=0)
    dataset = GroupDataset(lfw_set, framing=PhotoFraming(128), pairing=PLAIN, people=people)
    assert sorted(face for faces in dataset.photos for face in faces) == list(range(len(dataset.bank.rows)))
    with_strangers = 0
    for item, faces in enumerate(dataset.photos):
        if len(faces) + len(dataset._strangers(faces)) == 1 and item > 3:
            continue
        group: GroupSample = dataset[item]
        assert tuple(group.picture.shape[:2]) == dataset.size(item)
        assert {each.face for each in group.people} <= {*faces}
        assert 1 <= len(group.people) <= 2
        centres = [float(each.landmarks[:, 0].mean()) for each in group.people]
        assert centres == sorted(centres)  # from left to right
        assert len(group.people) + len(group.unknown) <= len(faces) + len(dataset._strangers(faces))
        height, width = group.picture.shape[:2]
        points = np.concatenate([*(each.landmarks[None].numpy() for each in group.people), group.unknown])
        assert ((points >= 0) & (points <= (width, height))).all()
        with_strangers += bool(len(group.unknown))
        rows = group.rows(4)
        numbers = [row.person for row in rows[len(group.people) :]]
        assert numbers[: len(group.unknown)] == [UNKNOWN] * min(len(group.unknown), len(numbers))
    assert with_strangers
    mixed = GroupDataset(lfw_set, framing=PhotoFraming(128), pairing=PLAIN, people=PeopleOptions(count=(2, 2)))
    assert len(mixed[0].people) <= 2
    assert tuple(mixed[0].picture.shape[:2]) == mixed.size(0)


def test_groups_are_dropped_as_a_whole_and_loaded_in_batches(lfw_set: str) -> None:
    dataset = aligned(lfw_set)
    dataset.pairing = Pairing(drop_text=0, drop_identity=1, drop_both=0)
    assert not any(each.has_identity or each.id_embeds.any() for each in dataset[0].people)
    loader = PairedLoader(dataset, 4)  # pyright: ignore[reportArgumentType]
    samples = next(iter(loader))
    assert len(samples) == 4
    assert loader.state_dict() == {"number": 1, "epoch": 0, "batch": 1}
    with pytest.raises(DataError, match="no cached latents"):
        GroupDataset(lfw_set, framing=AlignedFraming(), people=PeopleOptions(), latents="vae")
