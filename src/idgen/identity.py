"""`Identity`: the embeddings of an enrolled person."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F

from .attributes import Direction, find_direction, packaged
from .errors import EncoderMismatchError, IdentityError
from .faces.space import FaceSpace
from .identity_checks import warn_of_outliers
from .records import read_record, write_record

FORMAT = "idgen-identity-1"
MAX_BYTES = 1 << 30
"""Limit of the size of a file. The features of 80 photos for PuLID take less."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Identity:
    """Embeddings of one person's photos, with the name of their face encoder.

    Attributes:
        embeddings: (photos, dim), float32.
        encoder: Name of the face encoder, as in `FaceEncoder.name`.
        normalised: Whether the embeddings have unit length; otherwise they are raw.
        weights: (photos,), weight of each photo in the mean; scaled to sum to one. Equal if not given.
        features: (photos, tokens, channels), features of the photos by an image encoder, for adapters that read them.
        image_encoder: Name of the image encoder, as in `ImageEncoder.name`.
        name: Name of the person, or `None`.

    Raises:
        IdentityError: A value is not finite, a shape is wrong, or the weights are negative or all zero.
    """

    embeddings: torch.Tensor
    encoder: str
    normalised: bool = False
    weights: torch.Tensor | None = None
    features: torch.Tensor | None = None
    image_encoder: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        embeddings = torch.as_tensor(self.embeddings).detach().float().cpu()
        if embeddings.ndim != 2 or 0 in embeddings.shape:
            raise IdentityError(f"embeddings must have shape (photos, dim), got {tuple(embeddings.shape)}.")
        if not embeddings.isfinite().all():
            raise IdentityError("embeddings must be finite, got NaN or infinite values.")
        if (embeddings.norm(dim=-1) == 0).any():
            raise IdentityError("An embedding is all zeros, which means no identity.")
        weights = torch.ones(len(embeddings)) if self.weights is None else torch.as_tensor(self.weights).float().cpu()
        if weights.shape != embeddings.shape[:1] or not (weights >= 0).all() or not 0 < weights.sum() < torch.inf:
            raise IdentityError(f"weights must be {len(embeddings)} numbers >= 0, not all zero.")
        if self.features is not None:
            if self.features.ndim != 3 or len(self.features) != len(embeddings) or 0 in self.features.shape:
                raise IdentityError(f"features must have shape ({len(embeddings)}, tokens, channels).")
            if not self.features.is_floating_point() or not self.features.isfinite().all():
                raise IdentityError("features must be finite floating-point numbers.")
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

    @property
    def attributes(self) -> tuple[str, ...]:
        """The attributes that `anonymise` can keep with this encoder."""
        return tuple(FaceSpace.for_encoder(self.encoder, self.dim).attributes)

    @property
    def directions(self) -> tuple[str, ...]:
        """The attributes that `moved` can change with this encoder."""
        return tuple(packaged(self.encoder))

    def embedding(self, *, normalised: bool = False) -> torch.Tensor:
        """The weighted mean over the photos, (dim,).

        Args:
            normalised: Whether to normalise the embeddings and their mean to unit length.

        Raises:
            EncoderMismatchError: Raw embeddings are requested, but this identity has normalised ones only.
        """
        mean = _weights(self) @ self.by_photo(normalised=normalised)
        return F.normalize(mean, dim=-1) if normalised else mean

    def by_photo(self, *, normalised: bool = False) -> torch.Tensor:
        """The embedding of each photo, (photos, dim); see `embedding`."""
        if self.normalised and not normalised:
            raise EncoderMismatchError(
                f"Raw embeddings of '{self.encoder}' are required, but {self} has normalised ones only."
            )
        return F.normalize(self.embeddings, dim=-1) if normalised else self.embeddings

    def mean_features(self) -> torch.Tensor:
        """The weighted mean of the features over the photos, (tokens, channels).

        Raises:
            IdentityError: The identity has no features.
        """
        if self.features is None:
            raise IdentityError(f"{self} has no image features.")
        return torch.einsum("p,pnc->nc", _weights(self), self.features.float())

    @classmethod
    def mean(cls, identities: Sequence[Self], weights: Sequence[float] | None = None, name: str | None = None) -> Self:
        """Combine several photos or enrolments of one person.

        Every photo is kept with its weight; `embedding()` is their mean. A photo that looks like another person
        causes a warning.

        Args:
            identities: Identities of the same person and face encoder.
            weights: Weight of each identity; equal if not given.
            name: Name of the person; that of the first identity if not given.

        Raises:
            IdentityError: There are no identities, or not as many weights.
            EncoderMismatchError: The identities have different face encoders, or features of different image encoders.
        """
        if not identities:
            raise IdentityError("identities must contain at least one identity.")
        first = identities[0]
        for other in identities[1:]:
            _check_same_encoder(first, other)
        share = torch.ones(len(identities)) if weights is None else torch.as_tensor(weights, dtype=torch.float32)
        if len(share) != len(identities):
            raise IdentityError(
                f"weights must have one number per identity: got {len(share)} for {len(identities)} identities."
            )
        with_features = [i.features for i in identities if i.features is not None]
        if len({i.image_encoder for i in identities if i.features is not None}) > 1:
            raise EncoderMismatchError("The identities have features of different image encoders.")
        person = replace(
            first,
            embeddings=torch.cat([identity.embeddings for identity in identities]),
            weights=torch.cat([s * _weights(identity) for s, identity in zip(share, identities, strict=True)]),
            features=torch.cat(with_features) if len(with_features) == len(identities) else None,
            name=name or first.name,
        )
        warn_of_outliers(person.encoder, person.embeddings)
        return person

    @classmethod
    def mix(cls, a: Self, b: Self, t: float) -> Self:
        """Interpolate between two people on the sphere (slerp): `t` = 0 is `a`, `t` = 1 is `b`."""
        _check_same_encoder(a, b)
        start, end = (i.embedding(normalised=i.normalised) for i in (a, b))
        direction = _slerp(F.normalize(start, dim=-1), F.normalize(end, dim=-1), t)
        length = start.norm() * (1 - t) + end.norm() * t
        features = None
        if a.features is not None and b.features is not None and a.image_encoder == b.image_encoder:
            features = (a.mean_features() * (1 - t) + b.mean_features() * t)[None]
        return replace(a, embeddings=(direction * length)[None], weights=None, features=features, name=None)

    def anonymise(self, angle: float = 90, seed: int | None = None, keep: Sequence[str] = ()) -> Self:
        """A different person: the embedding is rotated away from this person, and keeps its length.

        Image features are dropped, since they show the person. docs/invented.md says from which angle on a person is
        not recognised.

        Args:
            angle: Angle in degrees between both people's offsets from the mean face of the encoder; at 90 they have
                nothing in common. See `FaceSpace.turn`.
            seed: Seed of the random direction.
            keep: Attributes that stay as they are. The default encoder has "age" and "sex", as people label photos.

        Raises:
            StatisticsError: An attribute of the encoder is not known.
        """
        embedding = self.embedding(normalised=self.normalised)
        turned = FaceSpace.for_encoder(self.encoder, self.dim).turn(embedding, angle, _generator(seed), keep)
        return replace(self, embeddings=turned[None], weights=None, features=None, name=None)

    def moved(self, attribute: str | Direction, amount: float = 1.0) -> Self:
        """The same person with an attribute changed, such as a smile or age: each photo's embedding is moved along a
        direction. Features of an image encoder stay those of the photos.

        Args:
            attribute: Name of a direction of the package, a safetensors file of one, or a `Direction`. The default
                encoder has the names in `directions`.
            amount: How far to move, in steps of the direction: 1 is a clear change. Negative to take the attribute
                away; 0 changes no bit. Moves along one direction add up.

        Raises:
            StatisticsError: The package has no direction of this name for the encoder.
            EncoderMismatchError: The direction is of another encoder.
            IdentityError: The move is too far; see `Direction.move`.
        """
        direction = find_direction(attribute, self.encoder) if isinstance(attribute, str) else attribute
        if direction.encoder != self.encoder:
            raise EncoderMismatchError(f"{direction} cannot move {self}: it is of another face encoder.")
        return replace(self, embeddings=direction.move(self.embeddings, amount)) if amount else self

    def recentred(self, pipeline: Any, **options: Any) -> Self:
        """The person with embeddings of pictures that are drawn of them in several poses, which say less of the photo;
        see `idgen.recentring.recentred` for the options."""
        from .recentring import recentred

        return recentred(self, pipeline, **options)

    @classmethod
    def random(cls, encoder: str, dim: int, *, norm: float | None = None, seed: int | None = None) -> Self:
        """A person who does not exist, drawn from the distribution of the encoder's embeddings; see `FaceSpace`.

        For an encoder without known statistics, a direction is drawn uniformly from the sphere.

        Args:
            encoder: Name of the encoder.
            dim: Length of its embeddings.
            norm: Length of the embedding vector; a random length of the encoder if not given.
            seed: Random seed.

        Raises:
            EncoderMismatchError: The encoder has embeddings of another length.
        """
        embedding = FaceSpace.for_encoder(encoder, dim).draw(_generator(seed))
        if norm is not None:
            embedding = F.normalize(embedding, dim=-1) * norm
        return cls(embeddings=embedding[None], encoder=encoder)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a safetensors file, atomically: a few KB, more with image features. It contains no image."""
        header = {"encoder": self.encoder, "normalised": self.normalised, "name": self.name}
        if self.image_encoder is not None:  # earlier versions do not know it
            header["image_encoder"] = self.image_encoder
        tensors = {"embeddings": self.embeddings, "weights": _weights(self), "features": self.features}
        tensors = {key: tensor for key, tensor in tensors.items() if tensor is not None}
        write_record(path, tensors, FORMAT, "identity", header)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` has written.

        Raises:
            CheckpointError: The file is missing, damaged, or not an identity.
            IdentityError: Its values are not valid; see the class.
        """
        return read_record(cls, path, MAX_BYTES, FORMAT, "identity", "an identity")


def _check_same_encoder(a: Identity, b: Identity) -> None:
    if (a.encoder, a.normalised, a.dim) != (b.encoder, b.normalised, b.dim):
        raise EncoderMismatchError(f"{a} and {b} have different face encoders and cannot be combined.")


def _weights(identity: Identity) -> torch.Tensor:
    assert identity.weights is not None
    return identity.weights


def _generator(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)


def _slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    angle = torch.acos((a @ b).clamp(-1, 1))
    if angle < 1e-4:  # the same direction: no division by sin(angle)
        return F.normalize(a * (1 - t) + b * t, dim=-1)
    return (a * torch.sin((1 - t) * angle) + b * torch.sin(t * angle)) / torch.sin(angle)
