"""`GroupDataset`: pictures with all their people, from photos of several faces and from composites."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import DataError
from .columns import open_photo
from .composites import Tile, compose, tile_side
from .dataset import CAPTION, PairedIdentityDataset
from .dataset import Place as DatasetPlace
from .framing import AlignedFraming, Framing, Place, SquareFraming
from .people_options import PeopleOptions
from .sample import Sample

UNKNOWN, NOBODY = -1, -2
"""Numbers in place of a person: of a face of nobody in the split, and of a row that only fills a batch."""


class GroupSample(NamedTuple):
    """One picture and all its people.

    Attributes:
        picture: (height, width, 3), uint8.
        prompt: Empty if it is dropped.
        people: The people of the split from left to right, each with references from other photos and the landmarks in
            this picture.
        unknown: (n, 5, 2), landmarks of the other faces, which are not conditioned.
        time_ids: Size conditioning of SDXL, six numbers.
        text: (length, dim) float16, the encoded prompt, if it is cached.
    """

    picture: torch.Tensor
    prompt: str
    people: tuple[Sample, ...]
    unknown: np.ndarray
    time_ids: torch.Tensor
    text: torch.Tensor | None

    def rows(self, count: int) -> list[Sample]:
        """A sample for each of `count` faces: the people, then unknown faces, then nobody where the first is."""
        first = self.people[0]
        unknown = [(UNKNOWN, torch.from_numpy(points).float()) for points in self.unknown]
        padding = [(NOBODY, first.landmarks)] * count
        others = [
            first._replace(
                id_embeds=torch.zeros_like(first.id_embeds),
                compared={name: torch.zeros_like(embeds) for name, embeds in first.compared.items()},
                target_embeds=torch.zeros_like(first.target_embeds),
                landmarks=landmarks,
                person=person,
                has_identity=False,
            )
            for person, landmarks in (*unknown, *padding)
        ]
        return [*self.people, *others][:count]


class GroupDataset(PairedIdentityDataset):
    """Map-style dataset of photos with all their people. The sample of a photo is a function of seed and epoch.

    Args:
        shards: See `PairedIdentityDataset`; so are the other arguments. Cached latents are not read: they are cut
            around one face.
        people: How pictures of several people are made.

    Raises:
        DataError: See `PairedIdentityDataset`, or random poses are asked for.
    """

    def __init__(self, shards: str, split: str = "train", *, people: PeopleOptions, **options: Any) -> None:
        pairing = options.get("pairing")
        if options.get("latents") is not None or (pairing is not None and pairing.poses):
            raise DataError("Pictures of several people have no cached latents and no random poses.")
        super().__init__(shards, split, **options)
        self.people = people

    @property
    def slots(self) -> int:
        """Faces per picture in a batch."""
        return self.people.count[1]

    @cached_property
    def photos(self) -> list[tuple[int, ...]]:
        """The faces of the split in each photo, the largest first."""
        found: dict[tuple[int, str], list[int]] = {}
        for face in range(len(self.bank.rows)):
            found.setdefault((int(self.bank.rows[face][0]), self.row(face)["key"]), []).append(face)
        return [tuple(sorted(faces, key=lambda face: -_area(self.row(face)["box"]))) for faces in found.values()]

    def __len__(self) -> int:
        return len(self.photos)

    @property
    def shards_of_items(self) -> np.ndarray:
        """(photos,), the shard that each photo is in."""
        return np.array([self.bank.rows[faces[0]][0] for faces in self.photos])

    def size(self, face: int) -> tuple[int, int]:
        """Height and width of the picture of a photo; a batch has pictures of one size."""
        if isinstance(self.framing, AlignedFraming):
            return self.framing.resolution, self.framing.resolution * self.slots
        row = self.row(self.photos[face][0])
        return self.framing.size(row["width"], row["height"])

    def __getitem__(self, place: DatasetPlace) -> GroupSample:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The sample of a photo: `dataset[photo]`, `dataset[epoch, photo]` or `dataset[epoch, photo, batch]`."""
        epoch, photo, batch = self._place(place)
        share = self.pairing.share_of_others(batch)
        random = np.random.default_rng((self.seed, epoch, photo))
        faces, keeps = self.photos[photo], self._drops(random)
        aligned = isinstance(self.framing, AlignedFraming)
        if aligned or len(faces) < self.people.count[0] or random.random() < self.people.composites:
            return self._composite(faces[0], self.size(photo), keeps, random, share)
        return self._photo(faces, keeps, random, share)

    def _photo(
        self, faces: Sequence[int], keeps: tuple[bool, bool], random: np.random.Generator, share: float
    ) -> GroupSample:
        """A photo, cut so that it holds as many of its people as possible."""
        rows = [self.row(face) for face in faces]
        around = _union([row["box"] for row in rows[: self.slots]])
        known = self._places(rows[: self.slots], around, rows[0])
        if not any(map(_is_inside, known)):
            around = rows[0]["box"]
            known = self._places(rows[: self.slots], around, rows[0])
        picture = self.framing.cut(open_photo(self._tar(faces[0]), rows[0]), around, _points(rows[0]))
        mirrored = self._flips(random)
        tensor = torch.from_numpy(picture[:, ::-1].copy() if mirrored else picture)

        def turn(place: Place) -> np.ndarray:
            return place.mirrored() if mirrored else place.landmarks

        people, others = [], [*rows[self.slots :], *self._strangers(faces)]
        for face, place in zip(faces, known, strict=False):
            if _is_inside(place) or not any(map(_is_inside, known)):
                people.append(self._sample(face, random, share, keeps, (tensor, turn(place), place.time_ids)))
        people.sort(key=lambda sample: float(sample.landmarks[:, 0].mean()))
        unknown = [turn(place) for place in self._places(others, around, rows[0]) if _is_inside(place)]
        caption = rows[0]["caption"] or group_caption(len(people))
        cached = self._value(faces[0], "text", self.text) if keeps[0] and rows[0]["caption"] and self.text else None
        return self._group(tensor, caption, people, unknown, keeps, cached)

    def _composite(
        self, face: int, size: tuple[int, int], keeps: tuple[bool, bool], random: np.random.Generator, share: float
    ) -> GroupSample:
        """Photos of this face's person and of other people in one picture."""
        count = min(int(random.integers(*self.people.count, endpoint=True)), len(self.bank))
        person = int(self.bank.person_of(np.array([face]))[0])
        others = random.choice(np.setdiff1d(np.arange(len(self.bank)), person), count - 1, replace=False)
        chosen = [face, *(int(self.bank.starts[i] + random.integers(self.bank.counts[i])) for i in others)]
        chosen = [chosen[i] for i in random.permutation(count)]
        overlap = float(random.uniform(0, self.people.overlap))
        framing = self._tile_framing(size, count, overlap)
        tiles = [self._tile(face, framing, random) for face in chosen]
        found = compose(tiles, *size, overlap, random)
        picture, time_ids = torch.from_numpy(found.picture), (*size, 0, 0, *size)
        visible = found.visible if found.visible.any() else ~found.visible
        people = [
            self._sample(face, random, share, keeps, (picture, points, time_ids))
            for face, points, seen in zip(chosen, found.landmarks, visible, strict=True)
            if seen
        ]
        return self._group(picture, group_caption(len(people)), people, list(found.landmarks[~visible]), keeps, None)

    def _tile_framing(self, size: tuple[int, int], count: int, overlap: float) -> Framing:
        if isinstance(self.framing, AlignedFraming):
            return self.framing
        side = tile_side(*size, count, overlap)
        return SquareFraming(side, min(side, 64) // 8 * 8 or 8)

    def _tile(self, face: int, framing: Framing, random: np.random.Generator) -> Tile:
        row = self.row(face)
        points = _points(row)
        place = framing.place(row["width"], row["height"], row["box"], points)
        picture = framing.cut(open_photo(self._tar(face), row), row["box"], points)
        return Tile(picture[:, ::-1], place.mirrored()) if self._flips(random) else Tile(picture, place.landmarks)

    def _group(
        self,
        picture: torch.Tensor,
        caption: str,
        people: Sequence[Sample],
        unknown: Sequence[np.ndarray],
        keeps: tuple[bool, bool],
        text: torch.Tensor | None,
    ) -> GroupSample:
        landmarks = np.stack(unknown) if unknown else np.zeros((0, 5, 2))
        prompt = caption if keeps[0] else ""
        return GroupSample(picture, prompt, tuple(people), landmarks, people[0].time_ids, text)

    def _places(self, rows: Sequence[dict[str, Any]], box: Sequence[float], photo: dict[str, Any]) -> list[Place]:
        """Locate faces of a photo in the picture around a box."""
        return [self.framing.place(photo["width"], photo["height"], box, _points(row)) for row in rows]

    def _strangers(self, faces: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of the photo's faces that are nobody of the split."""
        shard = int(self.bank.rows[faces[0]][0])
        table, key = self._table(shard), self.row(faces[0])["key"]
        own = {int(self.bank.rows[face][1]) for face in faces}
        rows = [i for i, other in enumerate(table["key"]) if other == key and i not in own]
        found = [{name: column[i] for name, column in table.items()} for i in rows]
        return [row for row in found if row["landmarks"]]


def group_caption(count: int) -> str:
    """Caption of a picture without one."""
    names = ["<id>"] * count
    return CAPTION if count == 1 else f"a photo of {', '.join(names[:-1])} and {names[-1]}"


def _points(row: dict[str, Any]) -> np.ndarray:
    return np.asarray(row["landmarks"]).reshape(5, 2)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _union(boxes: Sequence[Sequence[float]]) -> list[float]:
    corners = np.array(boxes)
    return [*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist()]


def _is_inside(place: Place) -> bool:
    return bool(((place.landmarks >= 0) & (place.landmarks <= (place.width - 1, place.height - 1))).all())
