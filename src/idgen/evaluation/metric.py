"""The interface of a metric, and its inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np

Crop: TypeAlias = "np.ndarray | None"
"""Aligned crop of the largest face in a picture, (112, 112, 3) uint8; None where no face was found."""


@dataclass(frozen=True, kw_only=True)
class Faces:
    """The faces of one picture by one encoder: (people, dim) each, unit length, NaN rows where no face was found.

    Attributes:
        drawn: Embeddings of the faces in the picture.
        reference: Embeddings of the photos that the people were enrolled from.
        target: Embeddings of other real photos of the people, if there are any.
    """

    drawn: np.ndarray
    reference: np.ndarray
    target: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A generated picture and what was measured in it.

    Attributes:
        pixels: (height, width, 3), uint8.
        faces: Encoder → the faces in it.
        without: The picture of the same prompt and seed without an identity, if there is one.
        seconds: Time that drawing it took, if known.
        prompt_score: How well it follows its prompt, if a network scores that.
        features: (dim,), of the whole picture by the feature network, if there is one.
        features_without: The same of `without`.
    """

    pixels: np.ndarray
    faces: dict[str, Faces] = field(default_factory=dict)
    without: np.ndarray | None = None
    seconds: float | None = None
    prompt_score: float | None = None
    features: np.ndarray | None = None
    features_without: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A row of the table.

    Attributes:
        name: In `report.json` and `report.csv`; metrics of an encoder are called `name/encoder` there.
        title: In the report, the terminal and the documentation.
        reads: What `compute` takes, and so what the metric is a value of:
            "picture": a `Picture` → its value, None where the picture lacks what the metric needs;
            "faces": the `Faces` of a picture → its value, once for each encoder;
            "person": the crops of all pictures of a person → (pictures,);
            "everyone": (pictures, dim) embeddings and (pictures,) names of people → (pictures,), for each encoder;
            "pairs": the `ErrorRates` of pictures and real photos → its value, for each encoder;
            "utilities": (people, thresholds) `utilities` and (people,) weights → the value, for each encoder;
            "features": (n, dim) features of the pictures and (m, dim) of real photos → the value.
        compute: The function.
        better: Which values are better.
        similarity: Whether it is a cosine of two faces, beside which reports show that of strangers and the threshold.
        formula: For the documentation.
        source: Paper or standard.
        help: What it says.
    """

    name: str
    title: str
    reads: Literal["picture", "faces", "person", "everyone", "pairs", "utilities", "features"]
    compute: Callable[..., Any]
    better: Literal["higher", "lower"] | None = None
    similarity: bool = False
    formula: str = ""
    source: str = ""
    help: str = ""

    @property
    def heading(self) -> str:
        """Title, and an arrow towards better values."""
        return self.title + {"higher": " ↑", "lower": " ↓", None: ""}[self.better]
