"""Similarities as bars, with the threshold of the encoder and the values of strangers."""

from __future__ import annotations

import html
from collections.abc import Iterable

from ..errors import StatisticsError
from ..faces import EncoderStatistics
from .scores import Score

FALSE_MATCH_RATE = 1e-3
"""Share of pairs of strangers above the threshold."""

SPREAD = 0.98
"""Share of pairs of strangers in the range that is shown."""


def similarity_html(scores: Iterable[Score], title: str = "Similarity to the photos") -> str:
    """A bar for each score and what the marks on the bars mean; empty without scores."""
    scores = list(scores)
    if not scores:
        return ""
    several = len({score.image for score in scores}) > 1
    rows = "".join(_row(score, f"Image {score.image} · " if several else "") for score in scores)
    legends = "".join(f"<li>{_legend(encoder)}</li>" for encoder in dict.fromkeys(s.encoder for s in scores))
    return f'<section class="similarity"><h3>{title}</h3><div class="rows">{rows}</div><ul>{legends}</ul></section>'


def _row(score: Score, start: str) -> str:
    name = html.escape(f"{start}{score.person}")
    encoder = html.escape(score.encoder)
    if score.cosine is None:
        return f'<div class="row"><div>{name}<small>{encoder}</small></div><p>No face was found.</p></div>'
    statistics = _statistics(score.encoder)
    low, marks, verdict = 0.0, "", ""
    if statistics is not None:
        threshold = statistics.threshold(FALSE_MATCH_RATE)
        edges = statistics.impostor.quantile((1 - SPREAD) / 2), statistics.impostor.quantile((1 + SPREAD) / 2)
        low = min(edges[0] - 0.02, score.cosine)
        left, right, line = (_percent(value, low) for value in (*edges, threshold))
        marks = (
            f'<i class="strangers" style="left:{left}%;width:{right - left:.1f}%"></i>'
            f'<i class="threshold" style="left:{line}%"></i>'
        )
        verdict = "above the threshold" if score.cosine > threshold else "below the threshold"
    told = f"{score.cosine:.2f}" + (f", {verdict}" if verdict else "")
    return (
        f'<div class="row"><div>{name}<small>{encoder}</small></div>'
        f'<div class="track" role="img" aria-label="{name} by {encoder}: {told}">{marks}'
        f'<i class="value" style="width:{_percent(score.cosine, low)}%"></i></div>'
        f"<p><strong>{score.cosine:.2f}</strong> {verdict}</p></div>"
    )


def _legend(encoder: str) -> str:
    name, statistics = html.escape(encoder), _statistics(encoder)
    if statistics is None:
        return f"{name}: no statistics of this encoder are known. Compare its values only with each other."
    edges = [statistics.impostor.quantile((1 + sign * SPREAD) / 2) for sign in (-1, 1)]
    return (
        f"{name}: strangers have {statistics.impostor.mean:.2f} on average, 98 % of them {edges[0]:.2f} to "
        f"{edges[1]:.2f} (shaded). One pair of strangers in 1,000 is above the threshold, "
        f"{statistics.threshold(FALSE_MATCH_RATE):.2f} (line)."
    )


def _statistics(encoder: str) -> EncoderStatistics | None:
    try:
        return EncoderStatistics.of(encoder)
    except StatisticsError:
        return None


def _percent(value: float, low: float) -> float:
    """Place of a cosine between `low` and 1."""
    return round(100 * min(max((value - low) / (1 - low), 0), 1), 1)
