"""People who do not exist, kept apart: the way IDiff-Face (arXiv 2308.04995) makes data for face recognition."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import EvaluationError
from ..identity import Identity

ATTEMPTS = 1000


def random_people(
    count: int, encoder: str, dim: int, *, norm: float = 1.0, minimum_angle: float = 0.0, seed: int = 0
) -> list[Identity]:
    """Draw directions from the sphere; one nearer than `minimum_angle` degrees to an earlier person is drawn again.

    Args:
        count: How many people.
        encoder: Name of the encoder whose space this is.
        dim: Length of its embeddings.
        norm: Length of the embeddings, see `Identity.random`.
        minimum_angle: Between any two, in degrees.
        seed: For the same people again; more of them begin with the same ones.

    Raises:
        EvaluationError: So many do not fit at this angle.
    """
    people: list[Identity] = []
    chosen = torch.empty(0, dim)
    largest = torch.cos(torch.deg2rad(torch.tensor(float(minimum_angle))))
    for number in range(count):
        for attempt in range(ATTEMPTS):
            state = np.random.SeedSequence([seed, number, attempt]).generate_state(1)
            person = Identity.random(encoder, dim, norm=norm, seed=int(state[0]))
            direction = person.embedding(normalised=True)
            if not len(chosen) or (chosen @ direction).max() <= largest:
                break
        else:
            raise EvaluationError(f"{number} people fit {minimum_angle}° apart in {dim} dimensions, not {count}.")
        people.append(person)
        chosen = torch.cat([chosen, direction[None]])
    return people
