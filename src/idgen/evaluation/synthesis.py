"""`idgen generate --table` and `--random`: labelled folders of many people, real ones or ones who do not exist.

People who do not exist can be told apart, as in the training data that IDiff-Face (arXiv 2308.04995) makes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..data.engines import Engine
from ..errors import EvaluationError
from ..faces import EncoderStatistics
from ..identity import Identity
from .cases import Case, enroll_cases, load_cases
from .drawer import FileOf, draw
from .drawing import DrawingSettings, plan
from .opener import PipelineOpener
from .prompts import PROMPT_SETS, Prompt, load_prompts

ATTEMPTS = 1000
HIGHEST_RATE = 1e-2
NEAR = 1e-4
"""False-match rate of the threshold above which an invented person is too similar to a real one."""


def generate_table(
    opener: PipelineOpener,
    settings: DrawingSettings,
    output: Path,
    *,
    table: Path | None,
    people: Sequence[Identity] | None,
    prompts: str,
    seeds: Sequence[int],
    file_of: FileOf,
    batch_size: int = 1,
    engine: Engine | None = None,
) -> None:
    """Draw people × prompts × seeds. Each person gets a folder, which also holds their identity.

    Args:
        opener: Opens the pipeline.
        settings: Settings of all pictures.
        output: Output folder.
        table: People as `load_cases` reads them; None for people who do not exist.
        people: The people who do not exist; see `random_people`.
        prompts: See `load_prompts`; any other text is a prompt itself.
        seeds: One picture for each.
        file_of: See `draw`.
        batch_size: See `draw`; so is `engine`.
    """
    if table is not None:
        cases = load_cases(table)
        identities = enroll_cases(opener.pipeline, cases)
    else:
        named = {f"person-{number:05d}": person for number, person in enumerate(people or ())}
        cases = [Case(name=name, references=()) for name in named]
        identities = {name: [replace(person, name=name)] for name, person in named.items()}
    known = prompts in PROMPT_SETS or Path(prompts).is_file()
    texts = load_prompts(prompts) if known else (Prompt(prompts),) if prompts else ()
    drawings = plan(cases, texts, seeds)
    for name, shown in identities.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        for number, identity in enumerate(shown):
            identity.save(output / name / f"identity{f'-{number + 1}' if len(shown) > 1 else ''}.safetensors")
    draw(opener, drawings, identities, settings, output, file_of, batch_size, engine)


def random_people(
    count: int,
    encoder: str,
    dim: int,
    *,
    false_match_rate: float | None = None,
    real: np.ndarray | None = None,
    seed: int = 0,
) -> list[Identity]:
    """Draw people by `Identity.random`; one who is too similar to an earlier or to a real one is drawn again.

    Args:
        count: Number of people.
        encoder: Name of the encoder.
        dim: Length of its embeddings.
        false_match_rate: No two people are more similar than this share of pairs of real strangers. The default is as
            high as so many people allow, 2 / count and at most 0.01: a person is drawn about seven times then. It is
            not checked for an encoder without statistics.
        real: (people, dim), unit length: real people. No invented person is more similar to one of them than one in
            10,000 pairs of strangers.
        seed: Seed of the people; at the same rate, more of them begin with the same ones.

    Raises:
        EvaluationError: No more people fit at this rate.
        StatisticsError: The encoder was measured on too few pairs for this rate.
    """
    if false_match_rate is None:
        false_match_rate = min(HIGHEST_RATE, 2 / max(count, 1))
    people: list[Identity] = []
    chosen = torch.empty(0, dim)
    largest, nearest = (_threshold(encoder, rate) for rate in (false_match_rate, NEAR))
    known = torch.empty(0, dim) if real is None else torch.as_tensor(real, dtype=torch.float32)
    for number in range(count):
        for attempt in range(ATTEMPTS):
            state = np.random.SeedSequence([seed, number, attempt]).generate_state(1)
            person = Identity.random(encoder, dim, seed=int(state[0]))
            direction = person.embedding(normalised=True)
            if _below(chosen, direction, largest) and _below(known, direction, nearest):
                break
        else:
            raise EvaluationError(
                f"Only {number} of {count} people could be told apart at a false-match rate of {false_match_rate:g}; "
                "give a lower rate."
            )
        people.append(person)
        chosen = torch.cat([chosen, direction[None]])
    return people


def _below(others: torch.Tensor, direction: torch.Tensor, threshold: float) -> bool:
    return not len(others) or float((others @ direction).max()) <= threshold


def _threshold(encoder: str, false_match_rate: float) -> float:
    statistics = EncoderStatistics.find(encoder)
    return 1.0 if statistics is None else statistics.threshold(false_match_rate)
