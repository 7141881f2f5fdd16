"""Membership inference: can somebody tell from an adapter's losses which people it has forgotten?"""

from __future__ import annotations

import numpy as np

from ...errors import MissingDependencyError

FOLDS = 5


def membership_accuracy(forgotten: np.ndarray, others: np.ndarray, seed: int = 0) -> float:
    """Accuracy of telling forgotten people from others by losses; 0.5 is a guess, and the ideal.

    Logistic regression with cross-validation on as many of each kind, as in MUFAC (arXiv 2311.02240).

    Args:
        forgotten: (n,), losses.
        others: (m,), losses.
        seed: Seed of the choice where one kind has more.

    Returns:
        NaN if there are fewer than two of one kind.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import StratifiedKFold, cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingDependencyError("This needs scikit-learn: pip install 'idgen-diffusers[provenance]'") from error
    count = min(len(forgotten), len(others))
    if count < 2:
        return float("nan")
    random = np.random.default_rng(seed)
    losses = np.concatenate([random.permutation(losses)[:count] for losses in (forgotten, others)])[:, None]
    labels = np.repeat([1, 0], count)
    folds = StratifiedKFold(min(FOLDS, count), shuffle=True, random_state=seed)
    attacker = make_pipeline(StandardScaler(), LogisticRegression())
    return float(cross_val_score(attacker, losses, labels, cv=folds).mean())


def nomus(accuracy: float, membership: float) -> float:
    """Normalised machine unlearning score: `½ accuracy + ½ (1 − 2 |membership − ½|)`, at most 1 (MUFAC).

    Args:
        accuracy: Accuracy on people who are kept.
        membership: See `membership_accuracy`.
    """
    return accuracy / 2 + (1 - 2 * abs(membership - 0.5)) / 2
