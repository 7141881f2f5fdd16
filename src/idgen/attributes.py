"""`Direction`: an attribute such as a smile or age as a direction in a face encoder's embeddings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from .errors import EncoderMismatchError, IdentityError, MissingDependencyError, StatisticsError
from .files import FilePath
from .records import read_record, write_record

FORMAT = "idgen-direction-1"
MAX_BYTES = 1 << 20
LEAST = 20
"""Fewest photos (or people, with `people`) of each label that a direction is fitted to."""
STRENGTH = 10.0
"""C of the logistic regression on embeddings of unit length."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Direction:
    """An attribute of faces as a direction in the embeddings of a face encoder.

    An embedding of unit length is `cos φ · p + sin φ · axis`, where p is orthogonal to the axis. A move changes the
    angle φ. p, which holds everything else about the person, stays, and so does the length. Moves along one axis add
    up, and a move by −a undoes a move by a.

    Attributes:
        name: Name of the attribute.
        encoder: Name of the face encoder, as in `FaceEncoder.name`.
        axis: (dim,), scaled to unit length.
        step: Angle in radians of a move by 1. `fit` sets it to the mean difference between photos with and without the
            attribute.
        auc: How well the angle tells the attribute of people whom it was not fitted to, from 0.5 (chance) to 1; None
            if it was not measured.

    Raises:
        IdentityError: The axis has another shape, or a number is not finite, or the step is not positive.
    """

    name: str
    encoder: str
    axis: torch.Tensor
    step: float
    auc: float | None = None

    def __post_init__(self) -> None:
        axis = torch.as_tensor(self.axis).detach().float().cpu()
        if axis.ndim != 1 or not axis.isfinite().all() or not axis.any():
            raise IdentityError(f"The axis of '{self.name}' must be finite numbers (dim,), not all of them zero.")
        if not 0 < self.step < math.pi:
            raise IdentityError(f"The step of '{self.name}' must be an angle in radians above 0, got {self.step}.")
        object.__setattr__(self, "axis", F.normalize(axis, dim=0))

    def __repr__(self) -> str:
        auc = "" if self.auc is None else f", auc={self.auc:.3f}"
        return f"Direction('{self.name}', encoder='{self.encoder}', step={self.step:.3f}{auc})"

    @classmethod
    def fit(
        cls,
        name: str,
        encoder: str,
        embeddings: np.ndarray,
        labels: np.ndarray,
        people: np.ndarray | None = None,
    ) -> Self:
        """Find the direction of an attribute by logistic regression.

        Args:
            name: Name of the attribute.
            encoder: Name of the face encoder.
            embeddings: (photos, dim), raw or of unit length.
            labels: (photos,), True for photos with the attribute.
            people: (photos,), the person of each photo, for what changes from photo to photo, such as a smile. Then
                only people with both labels count, and each photo is compared with the mean of the person's photos:
                what tells people apart cannot enter the direction. Leave it out for what belongs to a person, such
                as age.

        Raises:
            StatisticsError: Fewer than 20 photos have each label; with `people`, fewer than 20 people have both.
            MissingDependencyError: scikit-learn is not installed.
        """
        units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
        labels = np.asarray(labels, bool)
        offsets, told, shares = units - units.mean(0), labels, np.ones(len(labels))
        if people is None:
            count = int(min(labels.sum(), (~labels).sum()))
        else:
            offsets, told, shares = _within(units, labels, people)
            count = len(offsets) // 2
        if count < LEAST:
            of = "photos of each label" if people is None else "people with photos of both labels"
            raise StatisticsError(f"'{name}' needs {LEAST} {of} or more, got {count}.")
        axis = _logistic(offsets, told, shares)
        angles = np.arcsin((units @ axis).clip(-1, 1))
        if people is None:
            step = angles[labels].mean() - angles[~labels].mean()
        else:
            step = (offsets[told] - offsets[~told]).mean(0) @ axis
        return cls(name=name, encoder=encoder, axis=torch.from_numpy(axis), step=float(step))

    @classmethod
    def of(cls, name: str, encoder: str) -> Direction:
        """A direction that comes with the package.

        Raises:
            StatisticsError: The package has none of this name for this encoder.
        """
        known = packaged(encoder)
        if name not in known:
            raise StatisticsError(
                f"There is no direction '{name}' for '{encoder}'; known ones: {', '.join(known) or 'none'}. Fit one "
                "to labelled photos with idgen.attributes.Direction.fit."
            )
        return known[name]

    def value(self, embeddings: torch.Tensor) -> torch.Tensor:
        """(…, dim) embeddings, raw or of unit length → (…), float32, the angle φ in steps; 0 for zeros."""
        return (_angle(embeddings.double(), self.axis.to(embeddings.device).double()) / self.step).float()

    def move(self, embeddings: torch.Tensor, amount: float | torch.Tensor) -> torch.Tensor:
        """Move embeddings along the direction; see the class.

        Args:
            embeddings: (…, dim), raw or of unit length. Zeros, which mean no identity, stay zeros.
            amount: A number, or (…) numbers, in steps; 0 changes no bit.

        Raises:
            EncoderMismatchError: The embeddings have another length.
            IdentityError: A move ends beyond the axis, where there is nothing left of the person.
        """
        if embeddings.shape[-1] != len(self.axis):
            raise EncoderMismatchError(
                f"The direction '{self.name}' is of '{self.encoder}', with embeddings of {len(self.axis)} numbers, "
                f"not {embeddings.shape[-1]}."
            )
        exact = embeddings.double()
        axis, length = F.normalize(self.axis.to(exact), dim=0), exact.norm(dim=-1)
        rest = F.normalize(exact - (exact @ axis)[..., None] * axis, dim=-1)
        turn = torch.as_tensor(amount, device=exact.device, dtype=exact.dtype).expand(length.shape) * self.step
        angle = _angle(exact, axis) + turn
        if not (angle.abs() < math.pi / 2).all():
            raise IdentityError(
                f"A move of {amount} along '{self.name}' is too far: its angle would be {angle.abs().max():.2f} "
                f"radians and must be below {math.pi / 2:.2f}."
            )
        moved = length[..., None] * (angle.cos()[..., None] * rest + angle.sin()[..., None] * axis)
        return torch.where((turn == 0)[..., None], embeddings, moved.to(embeddings))

    def save(self, path: FilePath) -> None:
        """Write to a safetensors file below 1 KB for 128 numbers, atomically."""
        told = {"name": self.name, "encoder": self.encoder, "step": self.step, "auc": self.auc}
        write_record(path, {"axis": self.axis}, FORMAT, "direction", told)

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Read a file that `save` has written.

        Raises:
            CheckpointError: The file is missing, damaged, or not a direction.
            IdentityError: Its values are not valid; see the class.
        """
        return read_record(cls, path, MAX_BYTES, FORMAT, "direction", "a direction")


def packaged(encoder: str) -> Mapping[str, Direction]:
    """The directions that come with the package for an encoder, by name."""
    return _packaged(encoder)


def find_direction(name: str, encoder: str) -> Direction:
    """A direction by its name, or from a file.

    Args:
        name: Name of a direction of the package, or a safetensors file.
        encoder: Name of the face encoder of the embeddings to move.

    Raises:
        StatisticsError: The package has none of this name for this encoder.
        EncoderMismatchError: The file is of another encoder.
        CheckpointError: See `Direction.load`.
    """
    if not name.endswith(".safetensors"):
        return Direction.of(name, encoder)
    found = Direction.load(name)
    if found.encoder != encoder:
        raise EncoderMismatchError(f"The direction in '{name}' is of '{found.encoder}', not of '{encoder}'.")
    return found


def auc(values: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a photo with the attribute has a higher value than one without (Mann-Whitney).

    Args:
        values: (n,), such as `Direction.value`.
        labels: (n,), True for photos with the attribute.
    """
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # equal values share their mean rank
    positive, total = int(np.sum(labels)), len(values)
    return float((ranks[labels].sum() - positive * (positive + 1) / 2) / (positive * (total - positive)))


def _angle(embeddings: torch.Tensor, axis: torch.Tensor) -> torch.Tensor:
    """(…, dim) → (…), the angle φ in radians; it is exact near the axis too, where an arcsine is not."""
    along = embeddings @ axis
    return torch.atan2(along, (embeddings - along[..., None] * axis).norm(dim=-1))


def _within(units: np.ndarray, labels: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each person with both labels, the mean photo with and without the attribute, relative to the middle between
    them, (2 n, dim); its label; and its weight, which grows with the number of photos until they agree."""
    offsets, weights = [], []
    for person in np.unique(people):
        mine = people == person
        with_it, without = units[mine & labels], units[mine & ~labels]
        if len(with_it) and len(without):
            offsets.append((with_it.mean(0) - without.mean(0)) / 2)
            weights.append(len(with_it) * len(without) / (len(with_it) + len(without)))
    if not offsets:
        return np.zeros((0, units.shape[1])), np.zeros(0, bool), np.zeros(0)
    half, shares = np.stack(offsets), np.array(weights)
    told = np.repeat([True, False], len(half))
    return np.concatenate([half, -half]), told, np.tile(shares / shares.mean(), 2)


def _logistic(offsets: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(dim,), the normal of a logistic regression, of unit length."""
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingDependencyError(
            "Fitting a direction requires scikit-learn: pip install 'idgen-diffusers[data]'"
        ) from error
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
    normal = model.fit(offsets, labels, sample_weight=shares).coef_[0]
    return normal / np.linalg.norm(normal)


@cache
def _packaged(encoder: str) -> dict[str, Direction]:
    folder = Path(str(files("idgen"))) / "directions" / encoder
    if "/" in encoder or not folder.is_dir():
        return {}
    return {path.stem: Direction.load(path) for path in sorted(folder.glob("*.safetensors"))}
