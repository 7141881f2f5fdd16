"""`Identity`: an enrolled person. Enrol once, draw many."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F

from .errors import CheckpointError, EncoderMismatchError, IdentityError, StatisticsError
from .faces.space import FaceSpace
from .faces.statistics import EncoderStatistics
from .files import parse_json, read_tensors, write_tensors
from .typed import arguments

FORMAT = "idgen-identity-1"
MAX_BYTES = 1 << 27
"""Of a file; CLIP features of 100 photos take less."""

OUTLIER_RATIO = 1.4
"""A photo is suspect when it lies this many times farther from the mean of the others than is usual among them,"""

OUTLIER_DISTANCE = 0.3
"""and at least this far (between unit vectors): among photos that are nearly the same every ratio can come up."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Identity:
    """Embeddings of one person's photos, and what made them.

    Attributes:
        embeddings: (photos, dim), float32.
        encoder: Name of the face encoder, as in `FaceEncoder.name`.
        normalised: Whether the embeddings have unit length; `False` means as they left the encoder.
        weights: (photos,), what each photo counts in the mean; they sum to one. Equal if not given.
        features: (photos, tokens, channels), CLIP features of the faces, for adapters that read them.
        name: What people call this person, if anything.

    Raises:
        IdentityError: A value is not finite, a shape is wrong, or the weights are negative or all zero.
    """

    embeddings: torch.Tensor
    encoder: str
    normalised: bool = False
    weights: torch.Tensor | None = None
    features: torch.Tensor | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        embeddings = torch.as_tensor(self.embeddings).detach().float().cpu()
        if embeddings.ndim != 2 or 0 in embeddings.shape:
            raise IdentityError(f"Embeddings must have the shape (photos, dim), not {tuple(embeddings.shape)}.")
        if not embeddings.isfinite().all():
            raise IdentityError("The embedding holds values that are not finite numbers.")
        if (embeddings.norm(dim=-1) == 0).any():
            raise IdentityError("The embedding is all zeros, which stands for no identity.")
        weights = torch.ones(len(embeddings)) if self.weights is None else torch.as_tensor(self.weights).float().cpu()
        if weights.shape != embeddings.shape[:1] or not (weights >= 0).all() or not 0 < weights.sum() < torch.inf:
            raise IdentityError(f"{len(embeddings)} photos need as many weights, not negative and not all zero.")
        if self.features is not None:
            if self.features.ndim != 3 or len(self.features) != len(embeddings) or 0 in self.features.shape:
                raise IdentityError(f"Features must have the shape ({len(embeddings)}, tokens, channels).")
            if not self.features.is_floating_point() or not self.features.isfinite().all():
                raise IdentityError("The features hold values that are not finite numbers.")
        object.__setattr__(self, "embeddings", F.normalize(embeddings, dim=-1) if self.normalised else embeddings)
        object.__setattr__(self, "weights", weights / weights.sum())

    def __repr__(self) -> str:
        name = f"'{self.name}', " if self.name else ""
        kind = "normalised" if self.normalised else "raw"
        return f"Identity({name}photos={len(self.embeddings)}, dim={self.dim}, encoder='{self.encoder}', {kind})"

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.embeddings.shape[1]

    def embedding(self, *, normalised: bool = False) -> torch.Tensor:
        """(dim,): the weighted mean over the photos, of raw embeddings or of directions.

        Raises:
            EncoderMismatchError: Raw embeddings are asked for and only directions are known.
        """
        mean = _weights(self) @ self.by_photo(normalised=normalised)
        return F.normalize(mean, dim=-1) if normalised else mean

    def by_photo(self, *, normalised: bool = False) -> torch.Tensor:
        """(photos, dim): raw embeddings, or directions; raises as `embedding`."""
        if self.normalised and not normalised:
            raise EncoderMismatchError(f"{self} holds directions only; raw embeddings of '{self.encoder}' are needed.")
        return F.normalize(self.embeddings, dim=-1) if normalised else self.embeddings

    @classmethod
    def mean(cls, identities: Sequence[Self], weights: Sequence[float] | None = None, name: str | None = None) -> Self:
        """One person from several photos or enrolments.

        Every photo is kept with its weight; `embedding()` is their mean. A photo that looks like somebody else is
        named in a warning.

        Args:
            identities: Of the same person, by the same encoder.
            weights: What each of them counts; equal if not given.
            name: Defaults to the first one's.
        """
        if not identities:
            raise IdentityError("A mean needs at least one identity.")
        first = identities[0]
        for other in identities[1:]:
            _check_same_encoder(first, other)
        share = torch.ones(len(identities)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
        if len(share) != len(identities):
            raise IdentityError(f"{len(identities)} identities need as many weights, not {len(share)}.")
        with_features = [i.features for i in identities if i.features is not None]
        person = replace(
            first,
            embeddings=torch.cat([identity.embeddings for identity in identities]),
            weights=torch.cat([s * _weights(identity) for s, identity in zip(share, identities, strict=True)]),
            features=torch.cat(with_features) if len(with_features) == len(identities) else None,
            name=name or first.name,
        )
        _warn_of_outliers(person)
        return person

    @classmethod
    def mix(cls, a: Self, b: Self, t: float) -> Self:
        """A person between two: `t` = 0 is `a`, 1 is `b`; directions move along the great circle."""
        _check_same_encoder(a, b)
        start, end = (i.embedding(normalised=i.normalised) for i in (a, b))
        direction = _slerp(F.normalize(start, dim=-1), F.normalize(end, dim=-1), t)
        length = start.norm() * (1 - t) + end.norm() * t
        features = a.features * (1 - t) + b.features * t if _features_agree(a, b) else None  # pyright: ignore
        return replace(a, embeddings=(direction * length)[None], weights=None, features=features, name=None)

    def anonymise(self, angle: float, seed: int | None = None) -> Self:
        """A different person: the embedding turned away from this person, with its length kept.

        CLIP features are dropped, since they show the person.

        Args:
            angle: Degrees between what distinguishes both people from the mean face of the encoder; 90 leaves nothing
                in common. See `FaceSpace.turn`.
            seed: Seed of the random direction.
        """
        embedding = self.embedding(normalised=self.normalised)
        turned = _space(self.encoder, self.dim).turn(embedding, angle, _generator(seed))
        return replace(self, embeddings=turned[None], weights=None, features=None, name=None)

    @classmethod
    def random(cls, encoder: str, dim: int, *, norm: float | None = None, seed: int | None = None) -> Self:
        """A person who does not exist, drawn from where the faces of the encoder lie. See `FaceSpace`.

        The whole sphere is taken for an encoder of which the package knows nothing.

        Args:
            encoder: Name of the encoder.
            dim: Length of its embeddings.
            norm: Length of the embedding vector; that of a random person of the encoder if not given.
            seed: Seed of the person.

        Raises:
            EncoderMismatchError: The encoder has embeddings of another length.
        """
        embedding = _space(encoder, dim).draw(_generator(seed))
        if norm is not None:
            embedding = F.normalize(embedding, dim=-1) * norm
        return cls(embeddings=embedding[None], encoder=encoder)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a safetensors file of a few KB, whole or not at all. It holds no picture."""
        header = {"encoder": self.encoder, "normalised": self.normalised, "name": self.name}
        tensors = {"embeddings": self.embeddings, "weights": _weights(self), "features": self.features}
        tensors = {key: tensor for key, tensor in tensors.items() if tensor is not None}
        write_tensors(path, tensors, {"format": FORMAT, "identity": json.dumps(header)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, or not an identity.
            IdentityError: Its values cannot be used; see the class.
        """
        tensors, metadata = read_tensors(path, MAX_BYTES)
        where = f"'{os.fspath(path)}'"
        if metadata.get("format") != FORMAT or "embeddings" not in tensors:
            raise CheckpointError(f"{where} is not an identity: its format is {metadata.get('format')!r}.")
        header = parse_json(metadata.get("identity", ""), f"The description in {where}")
        if not isinstance(header, dict):
            raise CheckpointError(f"The description in {where} is no table but {type(header).__name__}.")
        return cls(**arguments(cls, {**header, **tensors}, where, CheckpointError))


def _space(encoder: str, dim: int) -> FaceSpace:
    """What is known of an encoder, or the whole sphere."""
    try:
        space = FaceSpace.of(encoder)
    except StatisticsError:
        return FaceSpace.even(encoder, dim)
    if space.dim != dim:
        raise EncoderMismatchError(f"Embeddings of '{encoder}' have {space.dim} numbers, not {dim}.")
    return space


def _check_same_encoder(a: Identity, b: Identity) -> None:
    if (a.encoder, a.normalised, a.dim) != (b.encoder, b.normalised, b.dim):
        raise EncoderMismatchError(f"{a} and {b} come from different encoders and cannot be combined.")


def _features_agree(a: Identity, b: Identity) -> bool:
    return a.features is not None and b.features is not None and a.features.shape == b.features.shape


def _weights(identity: Identity) -> torch.Tensor:
    assert identity.weights is not None
    return identity.weights


def _generator(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)


def _slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    angle = torch.acos((a @ b).clamp(-1, 1))
    if angle < 1e-4:  # the same direction: sin(angle) cannot divide
        return F.normalize(a * (1 - t) + b * t, dim=-1)
    return (a * torch.sin((1 - t) * angle) + b * torch.sin(t * angle)) / torch.sin(angle)


def _warn_of_outliers(person: Identity) -> None:
    directions = F.normalize(person.embeddings, dim=-1)
    count = len(directions)
    if count == 2:  # of two that differ, nobody can say which is the wrong one
        _warn_of_strangers(person.encoder, float(directions[0] @ directions[1]))
    if count < 3:
        return
    others = (directions.sum(0) - directions) / (count - 1)
    distance = (directions - others).norm(dim=-1)
    for i in range(count):
        usual = distance[torch.arange(count) != i].median()
        if distance[i] > max(OUTLIER_RATIO * usual, OUTLIER_DISTANCE):
            warnings.warn(
                f"Photo {i + 1} of {count} looks like somebody else than the others; give it a lower weight or leave "
                "it out.",
                stacklevel=3,
            )


def _warn_of_strangers(encoder: str, cosine: float) -> None:
    """Where nothing is known of the encoder, no cosine says that two photos show two people."""
    try:
        _, least = EncoderStatistics.of(encoder).equal_error
    except StatisticsError:
        return
    if cosine < least:
        warnings.warn(
            f"The two photos look like two people: their cosine by '{encoder}' is {cosine:.3f}, and photos of one "
            f"person rarely have less than {least:.3f}. Use photos of one person.",
            stacklevel=4,
        )
