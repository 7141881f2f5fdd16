"""The table of metrics: one function and one row each.

Reports, comparisons, the terminal, training's validation and docs/evaluation.md read this table. To add a metric,
write a function and add its row to `METRICS`.
"""

from __future__ import annotations

from operator import attrgetter

from .error_rates import operating_point_inconsistency
from .metric import Metric, Picture
from .metric_values import (
    assignment,
    between,
    blending,
    change,
    clip_i,
    copying,
    detail,
    detection,
    face_diversity,
    real,
    sim_gt,
    sim_ref,
)
from .similarity import frechet_distance

_ROWS = (
    Metric(
        name="sim_gt",
        title="Sim(GT)",
        reads="faces",
        compute=sim_gt,
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
        compute=sim_ref,
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
        compute=copying,
        better="lower",
        formula="(θ(g,t) − θ(g,r)) / max(θ(t,r), 1e-6)",
        source="WithAnyone, eq. 2",
        help="1: a copy of the reference; −1: a copy of the target",
    ),
    Metric(
        name="real",
        title="cos(reference, target), the photos themselves",
        reads="faces",
        compute=real,
        similarity=True,
        formula="cos(φ(r), φ(t))",
        help="what two real photos reach",
    ),
    Metric(
        name="blending",
        title="Identity blending",
        reads="faces",
        compute=blending,
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
        compute=assignment,
        better="higher",
        formula="share of people i with cos(φ(g_i), φ(t_i)) > cos(φ(g_i), φ(t_j)) for all j ≠ i",
        help="people in a picture with a face that is more like them than like the others; 0.75 for two people by "
        "chance, as faces are assigned to the people whom they resemble",
    ),
    Metric(
        name="between",
        title="Similarity between different people's pictures",
        reads="everyone",
        compute=between,
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
        compute=detection,
        better="higher",
        formula="faces found / people in the picture",
        help="0 for a picture without a face",
    ),
    Metric(
        name="diversity",
        title="Diversity of a person's faces",
        reads="person",
        compute=face_diversity,
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
        compute=change,
        better="lower",
        formula="root mean square difference to the same seed without identity",
        source="PuLID measures this by CLIP-I",
        help="0: the same picture as without an identity; compare at equal similarity",
    ),
    Metric(
        name="clip_i",
        title="CLIP-I to the picture without identity",
        reads="picture",
        compute=clip_i,
        better="higher",
        formula="cos of features to the same seed without identity",
        source="PuLID",
        help="papers call three things CLIP-I; this is PuLID's",
    ),
    Metric(
        name="sharpness",
        title="Sharpness",
        reads="picture",
        compute=detail,
        formula="std(x − blur(x)) / std(x), grey, blur of σ = width / 128",
        help="fine detail; compare pictures of the same prompts",
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
