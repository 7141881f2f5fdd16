"""Every figure against a value worked out by hand, or by a second, plain implementation."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from PIL import Image, ImageFilter

from idgen.errors import EvaluationError
from idgen.evaluation import (
    assignment_accuracy,
    copy_paste,
    cosine_similarity,
    detection_rate,
    disruption,
    diversity,
    error_rates,
    frechet_distance,
    identity_blending,
    mean_interval,
    operating_point_inconsistency,
    pairwise_difference,
    sharpness,
    utilities,
)
from idgen.evaluation.error_rates import PairScores

NOBODY = np.full(2, np.nan)


def at(degrees: float) -> np.ndarray:
    return np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])


def test_cosine_counts_a_missed_face_as_zero() -> None:
    pictures = np.stack([3 * at(60), at(180), NOBODY])
    assert cosine_similarity(pictures, at(0)) == pytest.approx([0.5, -1, 0])
    assert detection_rate(pictures) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [(at(0), 1.0), (at(90), -1.0), (at(45), 0.0), (at(30), 1 / 3), (at(-30), 1.0), (NOBODY, 0.0)],
)
def test_copy_paste(picture: np.ndarray, expected: float) -> None:
    reference, target = at(0), at(90)
    gt, gr, tr = (cosine_similarity(a, b) for a, b in ((picture, target), (picture, reference), (target, reference)))
    assert copy_paste(gt, gr, tr) == pytest.approx(expected)


def test_copy_paste_of_one_photo_twice_is_zero() -> None:
    assert copy_paste(np.array(0.2), np.array(0.2), np.array(1.0)) == 0


def test_identity_blending_is_the_mean_off_the_diagonal() -> None:
    assert identity_blending(np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.4], [0.5, 0.6, 0.7]])) == pytest.approx(2.1 / 6)
    assert math.isnan(identity_blending(np.array([[0.9]])))


def test_diversity_is_the_mean_over_pairs() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (4, 6, 6, 3), dtype=np.uint8)
    pairs = [
        math.sqrt(np.mean((crops[i] / 255 - crops[j] / 255) ** 2)) for i, j in itertools.combinations(range(4), 2)
    ]
    assert diversity(pairwise_difference(crops)).mean() == pytest.approx(np.mean(pairs))
    trusted = diversity(np.array([[0, 0.4], [0.4, 0]]), np.array([[1, 0.5], [0.5, 1]]))
    assert trusted == pytest.approx([0.2, 0.2])
    assert np.isnan(diversity(np.zeros((1, 1)))).all()


def test_disruption() -> None:
    black, grey = np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 3), 51, np.uint8)
    assert disruption(grey, black) == pytest.approx(0.2)
    assert disruption(black, black) == 0


def test_sharpness_falls_with_blur_and_not_with_contrast(astronaut: np.ndarray) -> None:
    photo = Image.fromarray(astronaut)
    values = [sharpness(np.asarray(photo.filter(ImageFilter.GaussianBlur(r)))) for r in (0, 1, 2, 4, 8)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 2 * values[-1]
    pale = (96 + astronaut * 0.25).round().astype(np.uint8)
    assert sharpness(pale) == pytest.approx(values[0], rel=0.05)
    assert sharpness(np.full((64, 64, 3), 200, np.uint8)) == 0


def test_error_rates_by_hand() -> None:
    # Threshold 0.7: one of four genuine pairs is missed, one of four impostors matches.
    rates = error_rates(np.array([0.9, 0.8, 0.7, 0.1]), np.array([0.75, 0.3, 0.2, 0.0]))
    assert rates.eer == pytest.approx(0.25)
    assert (rates.fmr, rates.fnmr, rates.threshold) == (0, pytest.approx(0.5), 0.8)


def test_error_rates_of_perfect_random_and_missing_scores() -> None:
    assert error_rates(np.array([0.9, 0.8]), np.array([0.1, 0.2])).eer == 0
    assert error_rates(np.array([0.5, 0.5]), np.array([0.5, 0.5])).eer == pytest.approx(0.5)
    missed = error_rates(np.array([0.9, -1.0]), np.array([0.1, 0.2]))
    assert missed.fnmr == 0.5


def test_equal_error_rate_of_two_gaussians() -> None:
    """Means d apart with unit variance cross at Φ(-d/2), and FNMR at FMR 1e-3 is Φ(3.0902 - d)."""
    random = np.random.default_rng(1)
    rates = error_rates(random.normal(2, 1, 200_000), random.normal(0, 1, 200_000))
    normal = scipy.stats.norm
    assert rates.eer == pytest.approx(normal.cdf(-1), abs=0.003)
    assert rates.fnmr == pytest.approx(normal.cdf(normal.isf(1e-3) - 2), abs=0.01)


@pytest.mark.parametrize("count", [200, 5])  # more pictures than features, and fewer
def test_frechet_distance_against_the_matrix_root(count: int) -> None:
    random = np.random.default_rng(2)
    a, b = random.normal(size=(count, 8)), random.normal(0.3, 2, size=(count + 3, 8))
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T) + 1e-12 * np.eye(8))
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * np.real(root))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(EvaluationError, match="at least two"):
        frechet_distance(a[:1], b)


def test_intervals_cover_and_pictures_are_not_people() -> None:
    """Of 200 seeded studies of 30 people × 8 pictures, about 95 % of the intervals hold the true mean."""
    random = np.random.default_rng(3)
    persons, hits, naive_hits = np.repeat(np.arange(30), 8), 0, 0
    for _ in range(200):
        values = 0.4 + random.normal(0, 0.1, 30)[persons] + random.normal(0, 0.05, 240)
        by_people, by_pictures = mean_interval(values, persons), mean_interval(values, np.arange(240))
        hits += by_people.low <= 0.4 <= by_people.high
        naive_hits += by_pictures.low <= 0.4 <= by_pictures.high
    assert 0.90 <= hits / 200 <= 0.98
    assert naive_hits / 200 < 0.75


def test_assignment_accuracy_in_numbers() -> None:
    """Of three people: right, wrong, and without a face. By chance, the best assignment of two has 0.75."""
    similarity = np.array([[0.9, 0.2, 0.3], [0.6, 0.5, 0.1], [0.0, 0.0, 0.0]])
    assert assignment_accuracy(similarity) == pytest.approx(1 / 3)
    assert assignment_accuracy(np.eye(2)) == 1
    assert math.isnan(assignment_accuracy(np.ones((1, 1))))
    cosines = np.random.default_rng(0).normal(size=(20_000, 2, 2))
    swapped = np.trace(cosines, axis1=1, axis2=2) < cosines[:, 0, 1] + cosines[:, 1, 0]
    cosines[swapped] = cosines[swapped][:, ::-1]
    assert np.mean([assignment_accuracy(each) for each in cosines]) == pytest.approx(0.75, abs=0.01)


def test_one_person_alone_has_no_interval() -> None:
    alone = mean_interval(np.array([0.2, 0.4]), np.array(["anna", "anna"]))
    assert alone.value == pytest.approx(0.3)
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_utility_and_its_spread_over_people() -> None:
    """Two people whose genuine pairs lie apart, and a third like the first."""
    random = np.random.default_rng(0)
    impostors = random.normal(0.2, 0.1, (3, 400))
    genuine = [np.full(10, 0.9), np.full(10, 0.0), np.full(10, 0.9)]
    scores = [np.concatenate(pair) for pair in zip(genuine, impostors, strict=True)]
    same = [np.arange(410) < 10] * 3
    utility = utilities(scores, same)
    low, high = np.quantile(impostors, [0.9, 0.99])
    for row, each in ((0, impostors[0]), (2, impostors[2])):
        for column, threshold in ((0, low), (-1, high)):
            kept = (each < threshold).mean()
            assert utility[row, column] == pytest.approx(2 * kept / (1 + kept))
    assert (utility[1] == 0).all()  # none of the person's genuine pairs match
    ones = np.ones(3)
    assert operating_point_inconsistency(utility, ones) == pytest.approx(utility.var(0).mean())
    twice = np.stack([utility[0], utility[0], utility[1]])
    assert operating_point_inconsistency(utility[:2], np.array([2, 1])) == pytest.approx(twice.var(0).mean())
    assert operating_point_inconsistency(utility[:1].repeat(2, 0), ones[:2]) == pytest.approx(0)
    assert math.isnan(operating_point_inconsistency(utility, np.array([0, 3, 0])))


def test_rates_of_very_many_pairs_are_those_of_rounded_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    same = np.repeat(np.arange(20), 5)[:, None] == np.arange(20)
    scores = np.where(same, random.normal(0.3, 0.1, same.shape), random.normal(0, 0.1, same.shape)).ravel()
    weights = random.integers(0, 4, scores.shape).astype(float)
    exact = PairScores(scores, same.ravel())(weights)
    monkeypatch.setitem(PairScores.__init__.__globals__, "MANY", 100)
    rounded = PairScores(scores, same.ravel())(weights)
    assert rounded.threshold * 2**16 % 1 == 0
    assert astuple(rounded) == pytest.approx(astuple(exact), abs=1e-3)
