"""`IdentityBlocklist`: people who must not be drawn."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F

from ..errors import BlockedIdentityError, EncoderMismatchError, IdentityError, StatisticsError
from ..faces import EncoderStatistics, FaceAnalyzer, Photo
from ..identity import Identity
from ..records import read_record, write_record

FORMAT = "idgen-blocklist-1"
MAX_BYTES = 1 << 29
"""Largest file that is read: 250,000 people with embeddings of 512 numbers."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class IdentityBlocklist:
    """Unit-length embeddings of people, and the cosine from which another embedding is taken for one of them.

    It holds no picture and no name. With n people on the list, another person is refused by mistake about n times as
    often as the false-match rate of the threshold.

    Attributes:
        embeddings: (people, dim), scaled to unit length.
        encoder: Name of the face encoder. Identities of another encoder are refused: they cannot be compared.
        threshold: Cosine from which two faces are taken for the same person; `idgen.provenance.thresholds` finds it.

    Raises:
        IdentityError: A shape is wrong, a value is not finite, or the threshold is not in (0, 1].
    """

    embeddings: torch.Tensor
    encoder: str
    threshold: float

    def __post_init__(self) -> None:
        embeddings = torch.as_tensor(self.embeddings).detach().float().cpu()
        if embeddings.ndim != 2 or not embeddings.isfinite().all() or (embeddings.norm(dim=-1) == 0).any():
            raise IdentityError("A blocklist needs finite embeddings of the shape (people, dim), none of them zero.")
        if not 0 < self.threshold <= 1:
            raise IdentityError(f"threshold must be in (0, 1], got {self.threshold}.")
        object.__setattr__(self, "embeddings", F.normalize(embeddings, dim=-1))

    def __len__(self) -> int:
        return len(self.embeddings)

    def __repr__(self) -> str:
        return f"IdentityBlocklist(people={len(self)}, encoder='{self.encoder}', threshold={self.threshold:g})"

    @classmethod
    def of(cls, *people: Identity, threshold: float | None = None) -> Self:
        """A blocklist of people whose identities come from one encoder.

        Args:
            people: At least one.
            threshold: By default the encoder's threshold for a false-match rate of 1e-4, if its statistics are known.

        Raises:
            IdentityError: There are no people, or no threshold is known for the encoder.
            EncoderMismatchError: The identities come from several encoders.
        """
        if not people:
            raise IdentityError("A blocklist needs at least one person.")
        encoder = people[0].encoder
        threshold = _default_threshold(encoder) if threshold is None else threshold
        empty = cls(embeddings=torch.empty(0, people[0].dim), encoder=encoder, threshold=threshold)
        return empty.adding(*people)

    def adding(self, *people: Identity) -> Self:
        """A blocklist with more people; raises EncoderMismatchError like `check`."""
        rows = [self._directions(person)[:1] for person in people]
        return replace(self, embeddings=torch.cat([self.embeddings, *rows]))

    def check(self, person: Identity) -> None:
        """Refuse a person who is on the list, by the mean of their photos or by any single photo.

        Raises:
            BlockedIdentityError: The person is on the list.
            EncoderMismatchError: The list was made by another encoder, so the identity cannot be compared.
        """
        nearest = (self._directions(person) @ self.embeddings.T).max() if len(self) else torch.tensor(-1.0)
        if nearest >= self.threshold:
            raise BlockedIdentityError(
                f"This person is on the blocklist and is not drawn (cosine {nearest:.3f}, threshold "
                f"{self.threshold:g})."
            )

    def check_picture(self, picture: Photo, analyzer: FaceAnalyzer | None = None) -> None:
        """Refuse a picture that shows a person on the list. A picture without a face passes.

        Args:
            picture: A generated picture or a photo.
            analyzer: With the list's encoder; it is opened by default.

        Raises:
            BlockedIdentityError, EncoderMismatchError: Like `check`.
        """
        analyzer = analyzer or FaceAnalyzer.for_encoder(self.encoder)
        for face in analyzer.analyze(picture):
            self.check(Identity(embeddings=torch.from_numpy(face.embedding)[None], encoder=face.encoder))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a safetensors file, whole or not at all."""
        values = {"encoder": self.encoder, "threshold": self.threshold}
        write_record(path, {"embeddings": self.embeddings}, FORMAT, "blocklist", values)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote; raises CheckpointError if it is missing, damaged or not a blocklist."""
        return read_record(cls, path, MAX_BYTES, FORMAT, "blocklist", "a blocklist")

    def _directions(self, person: Identity) -> torch.Tensor:
        """(1 + photos, dim): the mean first."""
        if (person.encoder, person.dim) != (self.encoder, self.embeddings.shape[1]):
            raise EncoderMismatchError(
                f"The blocklist was made by '{self.encoder}' and {person} by '{person.encoder}', so they cannot be "
                "compared. Make a blocklist with the adapter's encoder."
            )
        return torch.cat([person.embedding(normalised=True)[None], person.by_photo(normalised=True)])


def _default_threshold(encoder: str) -> float:
    """The cosine that one in 10,000 pairs of different people exceed; its confidence interval is wider than 0.001."""
    try:
        return round(EncoderStatistics.of(encoder).threshold(1e-4), 3)
    except StatisticsError as error:
        raise IdentityError(
            f"No threshold is known for '{encoder}': give one, or measure the encoder with `idgen calibrate`."
        ) from error
