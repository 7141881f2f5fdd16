"""Probes of predictions at each timestep: what they show of a photo, and the windows of losses that follow.

DiTi (arXiv 2401.11430) shows that noise removes fine attributes at small timesteps and coarse ones at large timesteps.
A loss on an attribute has something to teach where noise has removed the attribute from the photo, and a gradient that
means something where the prediction still shows it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

READABLE = 0.5
"""Share of an attribute that the prediction must show in a window."""
LOST = 0.1
"""Share of an attribute that noise must have removed in a window."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An attribute of the predictions at each timestep.

    Attributes:
        name: "identity", "group" or "label"; see `docs/evaluation.md`.
        photo: Value of the photos themselves.
        chance: Value of a prediction that shows nothing of the photo.
        with_id: (bins,), value of predictions with the identity.
        without_id: (bins,), value of predictions of the base model.
    """

    name: str
    photo: float
    chance: float
    with_id: list[float]
    without_id: list[float]

    @property
    def window(self) -> tuple[float, float] | None:
        """The shares of the schedule between which a loss on the attribute can teach something.

        From the first to the last part of the schedule where noise has removed at least `LOST` of the attribute from
        the base model's prediction, and the prediction with the identity shows at least `READABLE` of it; None if
        there is no such part. 0 is the chance level and 1 the value of the photos.
        """
        scale = self.photo - self.chance
        if scale <= 0:
            return None
        shown = (np.array(self.with_id) - self.chance) / scale
        removed = (self.photo - np.array(self.without_id)) / scale
        inside = np.flatnonzero((shown >= READABLE) & (removed >= LOST))
        return (float(inside[0] / len(shown)), float((inside[-1] + 1) / len(shown))) if len(inside) else None


class Predictions(NamedTuple):
    """Predictions of a photo at each timestep.

    Attributes:
        pictures: (bins, height, width, 3), uint8.
        embeds: (bins, dim), unit length, read at the landmarks of the photo, as the losses do by default.
        found: (bins,), whether a detector finds a face.
    """

    pictures: np.ndarray
    embeds: np.ndarray
    found: np.ndarray


def probe_identity(
    photos: np.ndarray, references: np.ndarray, with_id: Sequence[Predictions], without_id: Sequence[Predictions]
) -> Probe:
    """The cosine to the reference photo of the person; by chance, that of other people's photos."""
    cosines = photos @ references.T
    own = np.eye(len(photos), dtype=bool)

    def curve(predictions: Sequence[Predictions]) -> list[float]:
        return np.mean([one.embeds @ own for one, own in zip(predictions, references, strict=True)], 0).tolist()

    chance = float(cosines[~own].mean()) if len(photos) > 1 else 0.0
    return Probe(
        name="identity",
        photo=float(cosines[own].mean()),
        chance=chance,
        with_id=curve(with_id),
        without_id=curve(without_id),
    )


def probe_group(
    photos: np.ndarray,
    references: np.ndarray,
    groups: np.ndarray,
    with_id: Sequence[Predictions],
    without_id: Sequence[Predictions],
) -> Probe:
    """The share of predictions that lie nearest to the mean of their own group, of which the person is left out."""
    names = np.unique(groups)

    def right(person: int, embeds: np.ndarray) -> np.ndarray:
        others = np.arange(len(groups)) != person
        left = [name for name in names if (others & (groups == name)).any()]
        means = np.stack([references[others & (groups == name)].mean(0) for name in left])
        nearest = np.linalg.norm(embeds[:, None] - means, axis=-1).argmin(1)
        return np.array(left)[nearest] == groups[person]

    def curve(predictions: Sequence[Predictions]) -> list[float]:
        return np.mean([right(i, one.embeds) for i, one in enumerate(predictions)], 0).tolist()

    return Probe(
        name="group",
        photo=float(np.mean([right(i, photos[i : i + 1]) for i in range(len(photos))])),
        chance=float(max(np.mean(groups == name) for name in names)),
        with_id=curve(with_id),
        without_id=curve(without_id),
    )


def probe_labels(
    classifier: Callable[[np.ndarray], np.ndarray],
    photos: Sequence[np.ndarray],
    with_id: Sequence[Predictions],
    without_id: Sequence[Predictions],
) -> Probe:
    """The share of predictions with the label that a classifier gives to the photo."""
    labels = np.concatenate([classifier(photo[None]).argmax(-1) for photo in photos])

    def curve(predictions: Sequence[Predictions]) -> list[float]:
        rows = [classifier(one.pictures).argmax(-1) == label for one, label in zip(predictions, labels, strict=True)]
        return np.mean(rows, 0).tolist()

    chance = float(np.mean(labels[:, None] == labels))
    return Probe(name="label", photo=1.0, chance=chance, with_id=curve(with_id), without_id=curve(without_id))
