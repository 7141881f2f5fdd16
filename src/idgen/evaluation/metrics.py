"""The table of metrics: one function and one row each.

Reports, comparisons, the terminal, training's validation and docs/evaluation.md read this table. To add a metric,
write a function and add its row to `METRICS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from .error_rates import operating_point_inconsistency
from .metric import Crop, Faces, Metric, Picture
from .similarity import (
    assignment_accuracy,
    copy_paste,
    cosine_similarity,
    detection_rate,
    disruption,
    diversity,
    frechet_distance,
    identity_blending,
    pairwise_difference,
)


def _detection(picture: Picture) -> float | None:
    return detection_rate(next(iter(picture.faces.values())).drawn) if picture.faces else None


def _sim_ref(faces: Faces) -> float:
    return float(cosine_similarity(faces.drawn, faces.reference).mean())


def _sim_gt(faces: Faces) -> float | None:
    return None if faces.target is None else float(cosine_similarity(faces.drawn, faces.target).mean())


def _copy_paste(faces: Faces) -> float | None:
    if faces.target is None:
        return None
    to_target, to_reference = (cosine_similarity(faces.drawn, real) for real in (faces.target, faces.reference))
    return float(copy_paste(to_target, to_reference, cosine_similarity(faces.target, faces.reference)).mean())


def _real(faces: Faces) -> float | None:
    return None if faces.target is None else float(cosine_similarity(faces.target, faces.reference).mean())


def _blending(faces: Faces) -> float | None:
    if faces.target is None or len(faces.target) < 2:
        return None
    return identity_blending(np.nan_to_num(faces.drawn) @ faces.target.T)


def _assignment(faces: Faces) -> float | None:
    real = faces.reference if faces.target is None else faces.target
    return assignment_accuracy(np.nan_to_num(faces.drawn) @ real.T) if len(real) > 1 else None


def _between(embeddings: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Mean cosine of each person's pictures to those of all others, for each picture; NaN for a single person."""
    vectors, values = np.nan_to_num(embeddings), np.full(len(embeddings), np.nan)
    for person in np.unique(people):
        own = people == person
        if not own.all():
            others = vectors.sum(0) - vectors[own].sum(0)
            values[own] = others @ vectors[own].mean(0) / (~own).sum()
    return values


def _diversity(crops: Sequence[Crop]) -> np.ndarray:
    distance = np.zeros((len(crops), len(crops)))
    seen = [i for i, crop in enumerate(crops) if crop is not None]
    if seen:
        distance[np.ix_(seen, seen)] = pairwise_difference(np.stack([crop for crop in crops if crop is not None]))
    return diversity(distance)


def _disruption(picture: Picture) -> float | None:
    return None if picture.without is None else disruption(picture.pixels, picture.without)


def _clip_i(picture: Picture) -> float | None:
    if picture.features is None or picture.features_without is None:
        return None
    return float(cosine_similarity(picture.features, picture.features_without))


_ROWS = (
    Metric(
        name="sim_gt",
        title="Sim(GT)",
        reads="faces",
        compute=_sim_gt,
        similarity=True,
        better="higher",
        formula="cos(φ(g), φ(t))",
        source="WithAnyone, arXiv 2510.14975",
        help="similarity to the person; the main metric",
    ),
    Metric(
        name="sim_ref",
        title="Sim(Ref)",
        reads="faces",
        compute=_sim_ref,
        similarity=True,
        better="higher",
        formula="cos(φ(g), φ(r))",
        source="FaceSim of PuLID, ConsistentID",
        help="similarity to the photo that was given; a copy of it gives 1",
    ),
    Metric(
        name="copy_paste",
        title="Copy-Paste",
        reads="faces",
        compute=_copy_paste,
        better="lower",
        formula="(θ(g,t) − θ(g,r)) / max(θ(t,r), 1e-6)",
        source="WithAnyone, eq. 2",
        help="1: a copy of the reference; −1: a copy of the target",
    ),
    Metric(
        name="real",
        title="cos(reference, target), the photos themselves",
        reads="faces",
        compute=_real,
        similarity=True,
        formula="cos(φ(r), φ(t))",
        help="what two real photos reach",
    ),
    Metric(
        name="blending",
        title="Identity blending",
        reads="faces",
        compute=_blending,
        similarity=True,
        better="lower",
        formula="mean of cos(φ(g_i), φ(t_j)), i ≠ j",
        source="WithAnyone, eq. 10",
        help="whether several people in a picture look like each other",
    ),
    Metric(
        name="assignment",
        title="Assignment accuracy",
        reads="faces",
        compute=_assignment,
        better="higher",
        formula="share of people i with cos(φ(g_i), φ(t_i)) > cos(φ(g_i), φ(t_j)) for all j ≠ i",
        help="people in a picture with a face that is more like them than like the others; 0.75 for two people by "
        "chance, as faces are assigned to the people whom they resemble",
    ),
    Metric(
        name="between",
        title="Similarity between different people's pictures",
        reads="everyone",
        compute=_between,
        similarity=True,
        better="lower",
        formula="mean of cos(φ(g_a), φ(g_b)), a ≠ b",
        source="ID-Booth",
        help="high if everyone gets the same face",
    ),
    Metric(
        name="eer",
        title="EER",
        reads="pairs",
        compute=attrgetter("eer"),
        better="lower",
        formula="where FMR and FNMR cross",
        source="ISO/IEC 19795-1",
        help="whether pictures match the person they show, against real photos *t* (or *r*) of everyone",
    ),
    Metric(
        name="fmr",
        title="FMR at 1e-3",
        reads="pairs",
        compute=attrgetter("fmr"),
        formula="share of pairs of different people that match",
        source="ISO/IEC 19795-1",
        help="with under 1000 pairs of different people, FMR 1e-3 means none",
    ),
    Metric(
        name="fnmr",
        title="FNMR at FMR 1e-3",
        reads="pairs",
        compute=attrgetter("fnmr"),
        better="lower",
        formula="share of pairs of one person that do not match",
        source="ISO/IEC 19795-1",
        help="pictures that are not recognised as the person",
    ),
    Metric(
        name="opis",
        title="OPIS at FMR 1e-2 to 1e-1",
        reads="utilities",
        compute=operating_point_inconsistency,
        better="lower",
        formula="mean over thresholds d of the variance over people of U(d), the harmonic mean of the person's shares "
        "of genuine pairs that match and of impostor pairs that do not",
        source="TCM, arXiv 2307.04047, eq. 1",
        help="0: one threshold suits everyone",
    ),
    Metric(
        name="detection",
        title="Detection rate",
        reads="picture",
        compute=_detection,
        better="higher",
        formula="faces found / people in the picture",
        help="0 for a picture without a face",
    ),
    Metric(
        name="diversity",
        title="Diversity of a person's faces",
        reads="person",
        compute=_diversity,
        formula="mean over pairs of a person's aligned face crops of their root mean square difference",
        source="FaceDiv of StableIdentity uses LPIPS",
        help="0: always the same face",
    ),
    Metric(
        name="prompt",
        title="Prompt fidelity",
        reads="picture",
        compute=attrgetter("prompt_score"),
        better="higher",
        formula="CLIP-T: cos(text, picture), with `--clip`; or accuracy of the prompt's label, with `--classifier`",
        help="name the CLIP model with it",
    ),
    Metric(
        name="disruption",
        title="Disruption",
        reads="picture",
        compute=_disruption,
        better="lower",
        formula="root mean square difference to the same seed without identity",
        source="PuLID measures this by CLIP-I",
        help="0: the same picture as without an identity; compare at equal similarity",
    ),
    Metric(
        name="clip_i",
        title="CLIP-I to the picture without identity",
        reads="picture",
        compute=_clip_i,
        better="higher",
        formula="cos of features to the same seed without identity",
        source="PuLID",
        help="papers call three things CLIP-I; this is PuLID's",
    ),
    Metric(
        name="fid",
        title="Fréchet distance",
        reads="features",
        compute=frechet_distance,
        better="lower",
        formula="\\|μ_a − μ_b\\|² + tr(Σ_a + Σ_b − 2(Σ_a Σ_b)^½)",
        source="Heusel et al. 2017",
        help="pictures against real photos, by `--features` or CLIP; compare within one report only",
    ),
    Metric(
        name="seconds",
        title="Seconds per picture",
        reads="picture",
        compute=attrgetter("seconds"),
        better="lower",
        formula="wall time",
        help="peak memory of the process and the GPU is in the head of the report",
    ),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
"""Name → metric, in the order of the report."""


def metrics_of(reads: str) -> list[Metric]:
    """The metrics that are computed from one kind of input; see `Metric.reads`."""
    return [metric for metric in METRICS.values() if metric.reads == reads]


def picture_values(picture: Picture) -> dict[str, float]:
    """All metrics of a single picture: `name`, or `name/encoder`, → value."""
    values = {metric.name: metric.compute(picture) for metric in metrics_of("picture")}
    for metric in metrics_of("faces"):
        values |= {f"{metric.name}/{encoder}": metric.compute(faces) for encoder, faces in picture.faces.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def metrics_table() -> str:
    """`METRICS` as Markdown, for the documentation."""
    lines = ["| metric | formula | source | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| {m.heading} | {m.formula} | {m.source} | {m.help} |" for m in METRICS.values()]
    return "\n".join(lines)
