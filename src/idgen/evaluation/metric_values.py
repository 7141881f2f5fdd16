"""The values of metrics for a picture, a person or everyone, from what was measured in the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .metric import Crop, Faces, Picture
from .similarity import (
    assignment_accuracy,
    copy_paste,
    cosine_similarity,
    detection_rate,
    disruption,
    diversity,
    identity_blending,
    pairwise_difference,
    sharpness,
)


def detection(picture: Picture) -> float | None:
    return detection_rate(next(iter(picture.faces.values())).drawn) if picture.faces else None


def sim_ref(faces: Faces) -> float:
    return float(cosine_similarity(faces.drawn, faces.reference).mean())


def sim_gt(faces: Faces) -> float | None:
    return None if faces.target is None else float(cosine_similarity(faces.drawn, faces.target).mean())


def copying(faces: Faces) -> float | None:
    if faces.target is None:
        return None
    to_target, to_reference = (cosine_similarity(faces.drawn, real) for real in (faces.target, faces.reference))
    return float(copy_paste(to_target, to_reference, cosine_similarity(faces.target, faces.reference)).mean())


def real(faces: Faces) -> float | None:
    return None if faces.target is None else float(cosine_similarity(faces.target, faces.reference).mean())


def blending(faces: Faces) -> float | None:
    if faces.target is None or len(faces.target) < 2:
        return None
    return identity_blending(np.nan_to_num(faces.drawn) @ faces.target.T)


def assignment(faces: Faces) -> float | None:
    real = faces.reference if faces.target is None else faces.target
    return assignment_accuracy(np.nan_to_num(faces.drawn) @ real.T) if len(real) > 1 else None


def between(embeddings: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Mean cosine of each person's pictures to those of all others, for each picture; NaN for a single person."""
    vectors, values = np.nan_to_num(embeddings), np.full(len(embeddings), np.nan)
    for person in np.unique(people):
        own = people == person
        if not own.all():
            others = vectors.sum(0) - vectors[own].sum(0)
            values[own] = others @ vectors[own].mean(0) / (~own).sum()
    return values


def face_diversity(crops: Sequence[Crop]) -> np.ndarray:
    distance = np.zeros((len(crops), len(crops)))
    seen = [i for i, crop in enumerate(crops) if crop is not None]
    if seen:
        distance[np.ix_(seen, seen)] = pairwise_difference(np.stack([crop for crop in crops if crop is not None]))
    return diversity(distance)


def change(picture: Picture) -> float | None:
    return None if picture.without is None else disruption(picture.pixels, picture.without)


def detail(picture: Picture) -> float:
    return sharpness(picture.pixels)


def clip_i(picture: Picture) -> float | None:
    if picture.features is None or picture.features_without is None:
        return None
    return float(cosine_similarity(picture.features, picture.features_without))
