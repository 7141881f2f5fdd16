"""When the reward's similarity rises and the evaluation's falls."""

from __future__ import annotations

import random

import pytest

from idgen.errors import LossError
from idgen.rewards import RewardHackingGuard, Verdict

UP = [0.30 + 0.02 * i for i in range(12)]
DOWN = [0.60 - 0.02 * i for i in range(12)]
FLAT = [0.5] * 12


@pytest.mark.parametrize(
    ("reward", "evaluation"), [(UP, UP), (DOWN, DOWN), (DOWN, UP), (FLAT, DOWN), (UP, FLAT), (FLAT, FLAT)]
)
def test_only_separation_counts(reward: list[float], evaluation: list[float]) -> None:
    assert RewardHackingGuard()(reward, evaluation) is Verdict.CONTINUE


def test_the_guard_warns_and_then_stops() -> None:
    """Both rise for eight measurements; from then on the evaluation falls."""
    reward = [0.3 + 0.02 * i for i in range(20)]
    evaluation = [0.3 + 0.02 * i for i in range(8)] + [0.44 - 0.03 * i for i in range(1, 13)]
    guard = RewardHackingGuard(window=5, patience=3)
    verdicts = [guard(reward[:n], evaluation[:n]) for n in range(21)]
    first = verdicts.index(Verdict.WARN)
    assert 9 <= first <= 12  # after the turn at 8, as soon as the line over five measurements falls
    assert verdicts[first : first + 4] == [Verdict.WARN, Verdict.WARN, Verdict.STOP, Verdict.STOP]
    assert set(verdicts[:first]) == {Verdict.CONTINUE}


def test_a_recovery_starts_the_count_anew() -> None:
    guard = RewardHackingGuard(window=3, patience=3)
    reward = [0.1 * i for i in range(6)]
    evaluation = [0.9, 0.8, 0.7, 0.6, 0.9, 0.9]  # falls, falls, recovers
    verdicts = [guard(reward[:n], evaluation[:n]) for n in range(3, 7)]
    assert verdicts == [Verdict.WARN, Verdict.WARN, Verdict.CONTINUE, Verdict.CONTINUE]


def test_noise_within_the_tolerance_is_nothing() -> None:
    noise = random.Random(0)
    reward, evaluation = ([0.5 + noise.uniform(-0.004, 0.004) for _ in range(200)] for _ in range(2))
    guard = RewardHackingGuard()
    assert all(guard(reward[:n], evaluation[:n]) is Verdict.CONTINUE for n in range(201))
    twitchy = RewardHackingGuard(tolerance=0)
    assert any(twitchy(reward[:n], evaluation[:n]) is not Verdict.CONTINUE for n in range(201))


def test_the_change_is_that_of_the_line() -> None:
    """0.011 over a window of five counts, 0.009 does not."""
    for change, verdict in ((0.011, Verdict.WARN), (0.009, Verdict.CONTINUE)):
        falling = [0.5 - change * i / 4 for i in range(5)]
        assert RewardHackingGuard()(UP[:5], falling) is verdict


def test_too_few_measurements() -> None:
    for n in range(5):
        assert RewardHackingGuard()(UP[:n], DOWN[:n]) is Verdict.CONTINUE


def test_what_is_refused() -> None:
    with pytest.raises(LossError, match="same length"):
        RewardHackingGuard()(UP, DOWN[:3])
    with pytest.raises(LossError, match="finite"):
        RewardHackingGuard()([0.1, float("nan")], [0.1, 0.2])
    for nonsense in ({"window": 2}, {"tolerance": -1}, {"patience": 0}):
        with pytest.raises(LossError):
            RewardHackingGuard(**nonsense)
