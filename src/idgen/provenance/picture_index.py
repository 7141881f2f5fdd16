"""`PictureIndex`: which of the indexed pictures an edited picture was made from.

As in ID² (origin identification), pictures are compared by a linear map of their VAE latents. Here the map is not
trained: it gives the channels of the latents the same variance and no correlation, as the indexed pictures have them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import ProvenanceError
from ..faces import Photo, load_photo
from ..records import read_record, write_record
from .picture_latents import GRID, LatentReader

FORMAT = "idgen-pictures-1"
MAX_BYTES = 1 << 31
BATCH = 500
SHRINKAGE = 0.2
"""Share of the mean variance that is added to the channels' covariance before it is inverted."""

SAMPLE = 1000
FALSE_MATCHES = 0.01
"""Share of the pictures that would be taken for another picture of the index."""

NEXT = 20
"""Pictures after the best one, whose distance is compared with that of the best one."""

MEASURABLE = 100
"""Pictures from which the mean of each place and the threshold are measured."""

STRICT = 0.9
"""Threshold of a smaller index, and cosine above which two pictures of an index are taken for copies."""


class Origin(NamedTuple):
    """A picture of the index.

    Attributes:
        name: Its name.
        score: 1 for an equal picture, about 0 for one that is no nearer than the next 20 of the index.
    """

    name: str
    score: float


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PictureIndex:
    """Latents of pictures with their names, and no embedding of a face.

    The VAE decodes the latents to small copies of the pictures.

    Attributes:
        latents: (pictures, channels, 16, 16), float16.
        names: Name of each picture.
        base: Base model whose VAE was used.
        network: Key of the VAE's weights.

    Raises:
        ProvenanceError: A shape is wrong, a value is not finite, or the index is empty.
    """

    latents: torch.Tensor
    names: tuple[str, ...]
    base: str
    network: str

    def __post_init__(self) -> None:
        if self.latents.ndim != 4 or self.latents.shape[2:] != (GRID, GRID) or not self.latents.shape[1]:
            wanted, shape = f"(pictures, channels, {GRID}, {GRID})", tuple(self.latents.shape)
            raise ProvenanceError(f"An index needs latents of shape {wanted}, got {shape}.")
        if not self.names or len(self.names) != len(self.latents):
            raise ProvenanceError(f"An index of {len(self.latents)} pictures needs as many names, and at least one.")
        if not self.latents.isfinite().all():
            raise ProvenanceError("The latents of an index must be finite.")

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"PictureIndex(pictures={len(self)}, base='{self.base}')"

    @classmethod
    def of(cls, pictures: Iterable[tuple[str, Photo]], reader: LatentReader, index: Self | None = None) -> Self:
        """An index of pictures, or an index with more of them.

        Args:
            pictures: (name, picture). A picture with the name of an older one replaces it.
            reader: Reads their latents.
            index: Index that they are added to.

        Raises:
            ProvenanceError: There are no pictures, or the index was made with another VAE.
            ImageError: A picture cannot be opened.
        """
        rows: dict[str, torch.Tensor] = {}
        if index is not None:
            index.check(reader)
            rows = dict(zip(index.names, index.latents, strict=True))
        remaining = iter(pictures)
        while batch := list(islice(remaining, BATCH)):
            latents = reader([picture for _, picture in batch]).half()
            rows |= zip([name for name, _ in batch], latents, strict=True)
        if not rows:
            raise ProvenanceError("There are no pictures to index.")
        latents = torch.stack([*rows.values()])
        return cls(latents=latents, names=tuple(rows), base=reader.base, network=reader.network)

    def check(self, reader: LatentReader) -> None:
        """Raise ProvenanceError if the index was made with another VAE."""
        if reader.network != self.network:
            raise ProvenanceError(
                f"The index was made with the VAE of '{self.base}', and '{reader.base}' has another one. Give that "
                "base, or make a new index."
            )

    def find(self, pictures: Sequence[Photo], reader: LatentReader, count: int = 5) -> list[list[Origin]]:
        """The most similar pictures of the index, the best first, for each picture. Mirrored ones are found too.

        Raises:
            ProvenanceError: The index was made with another VAE.
            ImageError: A picture cannot be opened.
        """
        self.check(reader)
        opened = [load_photo(picture) for picture in pictures]
        views = opened, [np.fliplr(picture) for picture in opened]
        scores = torch.stack([self._mapped(reader(view)) @ self._features.T for view in views]).amax(0)
        values, places = scores.topk(min(max(count, 1 + NEXT), len(self)))
        return [
            [Origin(self.names[i], value) for i, value in zip(row, scores, strict=True)][:count]
            for row, scores in zip(places.tolist(), _relative(values).tolist(), strict=True)
        ]

    @cached_property
    def threshold(self) -> float:
        """Score that 1 % of the pictures reach with another picture of the index; 0.9 below 100 pictures.

        A picture above it was most likely made from the one that is found.
        """
        if len(self) < MEASURABLE:
            return STRICT
        sample = torch.linspace(0, len(self) - 1, min(SAMPLE, len(self))).long()
        scores = self._features[sample] @ self._features.T
        scores[scores > STRICT] = -1  # the picture itself and copies of it
        return float(_relative(scores.topk(1 + NEXT).values)[:, 0].quantile(1 - FALSE_MATCHES))

    @cached_property
    def _features(self) -> torch.Tensor:
        return self._mapped(self.latents)

    @cached_property
    def _mean(self) -> torch.Tensor:
        """Mean of each place, (channels, 16, 16); of each channel for a small index, whose pictures it would show."""
        mean = self.latents.float().mean(0)
        return mean if len(self) >= MEASURABLE else mean.mean((1, 2), keepdim=True).expand_as(mean)

    @cached_property
    def _whitening(self) -> torch.Tensor:
        """(channels, channels): the inverse square root of the channels' covariance over places and pictures."""
        rows = (self.latents.float() - self._mean).movedim(1, -1).flatten(0, 2)
        covariance = rows.T @ rows / len(rows)
        floor = SHRINKAGE * covariance.diagonal().mean().clamp(min=1e-12)
        values, vectors = torch.linalg.eigh(covariance + floor * torch.eye(len(covariance)))
        return vectors * values.rsqrt() @ vectors.T

    def _mapped(self, latents: torch.Tensor) -> torch.Tensor:
        """(n, channels, 16, 16) latents → (n, dim), unit length."""
        white = torch.einsum("nchw,cd->ndhw", latents.float() - self._mean, self._whitening)
        return F.normalize(white.flatten(1), dim=-1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a safetensors file, whole or not at all."""
        values = {"names": self.names, "base": self.base, "network": self.network}
        write_record(path, {"latents": self.latents}, FORMAT, "index", values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote; raises CheckpointError if it is missing, damaged or not an index."""
        return read_record(cls, path, MAX_BYTES, FORMAT, "index", "an index of pictures")


def _relative(cosines: torch.Tensor) -> torch.Tensor:
    """Scores of the best pictures of an index for each query, (queries, best), from their cosines in falling order.

    A cosine alone means little: some pictures resemble many others. Hence the distance is compared with that of the
    next pictures, as in the ratio test of SIFT.
    """
    rest = cosines[:, 1 : 1 + NEXT]
    others = rest.mean(1, keepdim=True) if rest.shape[1] else torch.zeros(len(cosines), 1)
    return 1 - (1 - cosines) / (1 - others).clamp(min=1e-6)
