"""Fréchet distance between two sets of pictures in the space of a feature network."""

from __future__ import annotations

import numpy as np

from ..errors import EvaluationError


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """FID, `|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)`, of features (n, d) and (m, d) (Heusel et al. 2017).

    It depends on the network and, for few pictures, on their number: compare only within one report.

    Raises:
        EvaluationError: A set has fewer than two pictures, or the features differ in width.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise EvaluationError(
            f"Fréchet distance needs two sets of at least two features, not {a.shape} and {b.shape}."
        )
    a, b = a.astype(np.float64), b.astype(np.float64)
    centred_a, centred_b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    # tr (Σ_a Σ_b)^½ is the sum of the singular values of A Bᵀ, where Σ = XᵀX: exact and real also when there are
    # fewer pictures than features, where the root of the singular product is not.
    shared = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    spread = np.square(centred_a).sum() + np.square(centred_b).sum() - 2 * shared
    return float(np.square(a.mean(0) - b.mean(0)).sum() + spread)
