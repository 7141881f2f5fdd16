"""The figures of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..pages import figure_uri, new_figure, new_figures
from .judges import EncoderRole
from .measure import Measured
from .metrics import METRICS
from .summary import GROUP_METRICS, Line, Summary


def plots(
    measured: Measured, encoders: Sequence[EncoderRole], summary: Summary, headline: str
) -> Iterator[dict[str, str]]:
    """Title and image of each figure: similarities by each encoder, and the groups by the one that is quoted."""
    if any(line["group"] for line in summary.lines):
        yield {"title": f"By group, by {headline}; the line is everybody", "image": _groups_figure(summary, headline)}
    for name in (encoder["name"] for encoder in encoders):
        scores = measured.scores[name]
        histogram = _similarity_histogram(scores[measured.genuine], scores[~measured.genuine])
        yield {"title": f"Pictures against real photos, by {name}", "image": histogram}
        values = [
            [row["values"].get(f"{metric}/{name}") for metric in ("sim_gt", "copy_paste")] for row in measured.rows
        ]
        points = np.array([pair for pair in values if None not in pair], float)
        if len(points):
            yield {"title": f"Copy-Paste against Sim(GT), by {name}", "image": _copy_paste_scatter(points)}


def _similarity_histogram(genuine: np.ndarray, impostor: np.ndarray) -> str:
    """Cosines of pictures to real photos of the same person and of other people; missed faces are at -1."""
    figure, axes = new_figure()
    bins = np.linspace(-1, 1, 61).tolist()
    for scores, label in ((impostor, "different people"), (genuine, "the same person")):
        if len(scores):
            named = f"{label} ({len(scores)})"
            axes.hist(scores, bins, histtype="stepfilled", density=True, alpha=0.6, label=named)  # one shape, not 60
    axes.set_xlabel("cosine")
    axes.set_ylabel("density")
    axes.legend()
    return figure_uri(figure)


def _copy_paste_scatter(points: np.ndarray) -> str:
    """Sim(GT) and Copy-Paste of each picture, (n, 2). Good pictures are at the right, near or under 0."""
    figure, axes = new_figure()
    axes.scatter(points[:, 0], points[:, 1], s=12, alpha=0.5)
    axes.plot(*points.mean(0), "k+", markersize=14)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("Sim(GT)")
    axes.set_ylabel("Copy-Paste")
    return figure_uri(figure)


def _groups_figure(summary: Summary, headline: str) -> str:
    """Similarity, error rates and found faces of each group with their intervals, all people as a line."""
    of_headline = [line for line in summary.lines if line["encoder"] in ("", headline)]
    groups = list(dict.fromkeys((line["by"], line["group"], line["people"]) for line in of_headline if line["group"]))
    present = {line["metric"] for line in of_headline if line["group"]}
    metrics = [metric for metric in GROUP_METRICS if metric in present]
    figure, axes = new_figures(len(metrics), 2.6, 0.8 + 0.3 * len(groups))
    for metric, part in zip(metrics, axes, strict=True):
        lines: dict[tuple[str, str, int], Line] = {
            (line["by"], line["group"], line["people"]): line for line in of_headline if line["metric"] == metric
        }
        places = [place for place, key in enumerate(groups) if key in lines]
        value, low, high = ([lines[groups[place]][end] for place in places] for end in ("value", "low", "high"))
        part.hlines(places, low, high, color="tab:blue")  # none where an end is NaN
        part.plot(value, places, "o", color="tab:blue")
        for key, line in lines.items():
            if not key[1]:
                part.axvline(line["value"], color="grey", linewidth=0.8)
        part.set_title(METRICS[metric].heading, fontsize=9)
        part.set_ylim(len(groups) - 0.5, -0.5)
        part.set_yticks(range(len(groups)), [f"{by}: {group} ({people})" for by, group, people in groups])
    return figure_uri(figure)
