"""The distribution of a face encoder's embeddings, and random people drawn from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import CheckpointError, EncoderMismatchError, StatisticsError
from ..files import FilePath, parse_json, read_tensors, write_tensors

FORMAT = "idgen-face-space-1"
MAX_BYTES = 1 << 24
RANK = 16
PEOPLE_PER_AXIS = 100
"""A space of ten people per axis tells its people from others with an AUC of 0.72, one of 460 with 0.50."""
RIDGE = 1.0
ATTRIBUTE = "attribute."
"""Prefix of the names of attribute tensors in a file."""

ARCFACE_LENGTH = 20.0
"""Usual length of raw embeddings of ArcFace networks."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceSpace:
    """A normal distribution of the directions of people's embeddings.

    The embeddings of an encoder fill a small part of the sphere: with dlib's network two people have a cosine of 0.84,
    and a uniformly random direction has a cosine of 0 to all of them. An adapter generates nearly the same face for
    all such directions, since it was not trained on them. The covariance is stored as a low-rank factor and one
    variance for the other directions, so that no person can be reconstructed from it.

    Attributes:
        encoder: Name of the encoder, as in `FaceEncoder.name`.
        people: Number of people it was measured on.
        mean: (dim,), mean direction of the people.
        factor: (dim, rank), principal axes, each as long as its standard deviation.
        remainder: Standard deviation along every other axis.
        length: Mean length of raw embeddings.
        length_deviation: Standard deviation of that length.
        attributes: Name → (dim,), the direction by whose product with an offset from the mean an attribute of the face
            is estimated, such as "age"; see `with_attribute`.
    """

    encoder: str
    people: int
    mean: torch.Tensor
    factor: torch.Tensor
    remainder: float
    length: float
    length_deviation: float
    attributes: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def fit(cls, encoder: str, embeddings: np.ndarray, labels: np.ndarray, rank: int = RANK) -> Self:
        """Estimate the distribution from labelled photos.

        Args:
            encoder: Name of the encoder.
            embeddings: (photos, dim), raw.
            labels: (photos,), the person of each photo, from 0.
            rank: Number of principal axes that are kept.

        Raises:
            StatisticsError: There are fewer than 100 people per axis: people could be recognised in the space of few.
        """
        lengths = np.linalg.norm(embeddings, axis=1)
        people, first = np.unique(labels, return_index=True)
        if len(people) < PEOPLE_PER_AXIS * rank:
            needed = PEOPLE_PER_AXIS * rank
            raise StatisticsError(f"{len(people)} people are too few for {rank} axes; {needed:,} are needed.")
        directions = embeddings[first] / lengths[first, None]  # one photo per person
        mean = directions.mean(0)
        variances, axes = np.linalg.eigh(np.cov((directions - mean).T))
        variances, axes = variances[::-1], axes[:, ::-1]
        return cls(
            encoder=encoder,
            people=len(people),
            mean=torch.from_numpy(mean).float(),
            factor=torch.from_numpy(axes[:, :rank] * np.sqrt(variances[:rank])).float(),
            remainder=float(np.sqrt(variances[rank:].mean())) if rank < len(variances) else 0.0,
            length=float(lengths.mean()),
            length_deviation=float(lengths.std()),
        )

    @classmethod
    def even(cls, encoder: str, dim: int) -> Self:
        """The uniform distribution on the sphere, for an unknown encoder (IDiff-Face, arXiv 2308.04995)."""
        return cls(
            encoder=encoder,
            people=0,
            mean=torch.zeros(dim),
            factor=torch.zeros(dim, 0),
            remainder=dim**-0.5,
            length=ARCFACE_LENGTH,
            length_deviation=0.0,
        )

    @classmethod
    def of(cls, encoder: str) -> FaceSpace:
        """The space of an encoder that comes with the package.

        Raises:
            StatisticsError: The package has none of this encoder.
        """
        return _packaged(encoder)

    @classmethod
    def for_encoder(cls, encoder: str, dim: int) -> FaceSpace:
        """The space of an encoder, or the whole sphere if the package has none.

        Args:
            encoder: Name of the encoder.
            dim: Length of its embeddings.

        Raises:
            EncoderMismatchError: The encoder has embeddings of another length.
        """
        try:
            space = cls.of(encoder)
        except StatisticsError:
            return cls.even(encoder, dim)
        if space.dim != dim:
            raise EncoderMismatchError(f"Embeddings of '{encoder}' have {space.dim} numbers, not {dim}.")
        return space

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return len(self.mean)

    def draw(self, generator: torch.Generator | None = None) -> torch.Tensor:
        """(dim,): the raw embedding of a person who does not exist."""
        length = self.length + self.length_deviation * torch.randn((), generator=generator)
        return F.normalize(self.mean + self._offset(generator), dim=-1) * length

    def draw_many(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """(count, dim): as many people at once, others than those of `draw` with the same generator."""
        along = torch.randn(count, self.factor.shape[1], generator=generator) @ self.factor.T
        directions = self.mean + along + self.remainder * torch.randn(count, self.dim, generator=generator)
        lengths = self.length + self.length_deviation * torch.randn(count, 1, generator=generator)
        return F.normalize(directions, dim=-1) * lengths

    def with_attribute(self, name: str, embeddings: np.ndarray, values: np.ndarray) -> Self:
        """The same space with an attribute, by ridge regression on the offsets from the mean.

        Args:
            name: Name of the attribute.
            embeddings: (people, dim), raw.
            values: (people,), the attribute in any unit, for example years, or -1 and 1.

        Raises:
            StatisticsError: There are fewer than 100 people, or they have all the same value.
        """
        if len(embeddings) < PEOPLE_PER_AXIS or not np.std(values) > 0:
            raise StatisticsError(f"'{name}' needs {PEOPLE_PER_AXIS} people or more, and different values.")
        offsets = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) - self.mean.numpy()
        offsets, told = offsets - offsets.mean(0), (values - np.mean(values)) / np.std(values)
        direction = np.linalg.solve(offsets.T @ offsets + RIDGE * np.eye(self.dim), offsets.T @ told)
        return replace(self, attributes={**self.attributes, name: torch.from_numpy(direction).float()})

    def turn(
        self, embedding: torch.Tensor, angle: float, generator: torch.Generator | None = None, keep: Sequence[str] = ()
    ) -> torch.Tensor:
        """Turn an embedding around the mean towards a random person.

        Args:
            embedding: (dim,), raw or of unit length.
            angle: Angle in degrees between both people's offsets from the mean; at 90 they have nothing in common.
            generator: Random generator.
            keep: Attributes that the person keeps. What is turned is the part of the offset that says nothing of them.

        Returns:
            (dim,), of the same length.

        Raises:
            StatisticsError: The space has no such attribute.
        """
        offset = F.normalize(embedding, dim=-1) - self.mean
        kept = self._kept(keep)
        stays = kept @ (kept.T @ offset)
        own, side = offset - stays, self._offset(generator)
        side = side - kept @ (kept.T @ side)
        side = side - (side @ own) / (own @ own) * own
        side = side * own.norm() / side.norm()
        radians = torch.deg2rad(torch.tensor(float(angle)))
        turned = self.mean + stays + own * radians.cos() + side * radians.sin()
        return F.normalize(turned, dim=-1) * embedding.norm()

    def _kept(self, names: Sequence[str]) -> torch.Tensor:
        """An orthonormal basis of the directions of attributes, (dim, attributes)."""
        if unknown := set(names) - {*self.attributes}:
            known = ", ".join(self.attributes) or "none"
            raise StatisticsError(
                f"The attributes {', '.join(sorted(unknown))} of '{self.encoder}' are not known; known ones: {known}."
            )
        if not names:
            return torch.zeros(self.dim, 0)
        return torch.linalg.qr(torch.stack([self.attributes[name] for name in names], 1))[0]

    def _offset(self, generator: torch.Generator | None) -> torch.Tensor:
        """The offset of a random person from the mean, (dim,)."""
        along = self.factor @ torch.randn(self.factor.shape[1], generator=generator)
        return along + self.remainder * torch.randn(self.dim, generator=generator)

    def save(self, path: FilePath) -> None:
        """Write to a safetensors file of a few KB, atomically."""
        told = {name: getattr(self, name) for name in ("encoder", "people", "remainder", "length", "length_deviation")}
        tensors = {"mean": self.mean.half(), "factor": self.factor.half()}
        tensors |= {f"{ATTRIBUTE}{name}": F.normalize(axis, dim=0).half() for name, axis in self.attributes.items()}
        write_tensors(path, tensors, {"format": FORMAT, "space": json.dumps(told)})

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Read a file that `save` has written.

        Raises:
            CheckpointError: The file is missing, damaged, or of another format.
        """
        tensors, metadata = read_tensors(path, MAX_BYTES)
        try:
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}")
            told = parse_json(metadata["space"], "the description")
            axes = {name.removeprefix(ATTRIBUTE): axis.float() for name, axis in tensors.items() if ATTRIBUTE in name}
            return cls(**told, mean=tensors["mean"].float(), factor=tensors["factor"].float(), attributes=axes)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"'{path}' does not contain the space of a face encoder: {error}") from error


@cache
def _packaged(encoder: str) -> FaceSpace:
    found = files("idgen.faces") / f"{encoder}.safetensors"
    if "/" in encoder or not found.is_file():
        raise StatisticsError(f"There is no face space of '{encoder}'.")
    return FaceSpace.load(str(found))
