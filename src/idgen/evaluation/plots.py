"""The report's two diagrams as data addresses of PNG."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np

from ..errors import MissingDependencyError


def similarity_histogram(genuine: np.ndarray, impostor: np.ndarray) -> str:
    """Cosines of pictures to their own person's photo and to others'; missed faces stand at -1."""
    figure, axes = _figure()
    bins = np.linspace(-1, 1, 61)
    for scores, label in ((impostor, "somebody else"), (genuine, "the same person")):
        if len(scores):
            axes.hist(scores, bins, density=True, alpha=0.6, label=f"{label} ({len(scores)})")
    axes.set_xlabel("cosine")
    axes.set_ylabel("density")
    axes.legend()
    return _png(figure)


def copy_paste_scatter(points: np.ndarray) -> str:
    """A dot for each picture: (n, 2), Sim(GT) and Copy-Paste. Good pictures lie to the right and near or under 0."""
    figure, axes = _figure()
    axes.scatter(points[:, 0], points[:, 1], s=12, alpha=0.5)
    axes.plot(*points.mean(0), "k+", markersize=14)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("Sim(GT)")
    axes.set_ylabel("Copy-Paste")
    return _png(figure)


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure  # not pyplot: it keeps figures, and asks for a display
    except ImportError as error:
        raise MissingDependencyError("Diagrams need matplotlib: pip install 'idgen-diffusers[evaluate]'") from error
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
