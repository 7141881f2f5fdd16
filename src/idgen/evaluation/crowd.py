"""People who do not exist and are told apart, as IDiff-Face (arXiv 2308.04995) makes data for face recognition."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import EvaluationError, StatisticsError
from ..faces import EncoderStatistics
from ..identity import Identity

ATTEMPTS = 1000


def random_people(
    count: int,
    encoder: str,
    dim: int,
    *,
    false_match_rate: float = 1e-3,
    seed: int = 0,
) -> list[Identity]:
    """Draw people by `Identity.random`; one who is too similar to an earlier one is drawn again.

    Args:
        count: Number of people.
        encoder: Name of the encoder.
        dim: Length of its embeddings.
        false_match_rate: No two people are more similar than this share of pairs of real strangers. It is not checked
            for an encoder of which the package has no statistics.
        seed: Seed of the people; more of them begin with the same ones.

    Raises:
        EvaluationError: No more people fit at this rate.
        StatisticsError: The encoder was measured on too few pairs for this rate.
    """
    people: list[Identity] = []
    chosen = torch.empty(0, dim)
    largest = _threshold(encoder, false_match_rate)
    for number in range(count):
        for attempt in range(ATTEMPTS):
            state = np.random.SeedSequence([seed, number, attempt]).generate_state(1)
            person = Identity.random(encoder, dim, seed=int(state[0]))
            direction = person.embedding(normalised=True)
            if not len(chosen) or (chosen @ direction).max() <= largest:
                break
        else:
            raise EvaluationError(
                f"Only {number} of {count} people could be told apart at a false-match rate of {false_match_rate:g}; "
                "give a lower rate."
            )
        people.append(person)
        chosen = torch.cat([chosen, direction[None]])
    return people


def _threshold(encoder: str, false_match_rate: float) -> float:
    try:
        statistics = EncoderStatistics.of(encoder)
    except StatisticsError:
        return 1.0
    return statistics.threshold(false_match_rate)
