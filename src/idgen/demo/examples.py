"""People to try the demo with: an astronaut, and people who do not exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..errors import DemoError, StatisticsError
from ..faces.space import FaceSpace
from ..identity import Identity
from .backend import Backend
from .enrolled import EnrolledPerson, enroll_person, person_from_file

ASTRONAUT = "Astronaut"

SEEDS = {"Ada": 2, "Ben": 5, "Cleo": 7}
"""Seeds of invented people, see `Identity.random`."""


def picture(name: str) -> Path:
    """A small image of an example: part of NASA's portrait, or an invented person drawn by the built-in model."""
    return Path(__file__).parent / "examples" / f"{name.lower()}.webp"


def examples(backend: Backend) -> Mapping[str, Callable[[], EnrolledPerson]]:
    """The examples by name. People can be invented for adapters that read nothing but an
    embedding of an encoder whose embeddings are known."""
    people: dict[str, Callable[[], EnrolledPerson]] = {ASTRONAUT: lambda: _astronaut(backend)}
    adapter = next(iter(backend.pipeline.adapters.values()))
    encoder, dim = adapter.config["encoder"], adapter.config["embedding_dim"]
    try:
        known = FaceSpace.of(encoder).dim == dim and adapter.feature_dim is None
    except StatisticsError:
        known = False
    for name, seed in SEEDS.items() if known else ():
        people[name] = lambda name=name, seed=seed: person_from_file(Identity.random(encoder, dim, seed=seed), name)
    return people


def example(backend: Backend, name: str) -> EnrolledPerson:
    """An example; raises DemoError if there is none of this name."""
    people = examples(backend)
    if name not in people:
        raise DemoError(f"There is no example '{name}'. Examples: {', '.join(people)}.")
    return people[name]()


def _astronaut(backend: Backend) -> EnrolledPerson:
    """Eileen Collins, photographed by NASA (public domain); scikit-image has the photo."""
    from skimage import data

    photo = np.asarray(data.astronaut())
    with backend.faces_lock:
        face = backend.analyzer.find(photo)
        return enroll_person(backend.pipeline.pipe, [photo], [face], ASTRONAUT, backend.scorer.encoders)
