"""The batches of a training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, Self

import torch

from ..errors import TrainingError

OF_PICTURES = frozenset({"latents", "time_ids", "encoder_hidden_states", "text_embeds", "swapped"})
"""Tensors of a batch with a row for each picture; all others have a row for each face."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Target pictures with their identities.

    With `people` > 1, tensors of faces have that many rows for each picture, next to each other: they are (faces, …)
    where (batch, …) is written here. They are filled up with rows of nobody.

    Attributes:
        people: Faces per picture.
        latents: (batch, channels, height, width), latents of the targets, scaled for the UNet.
        prompts: One prompt per sample; empty where the text is dropped.
        id_embeds: (batch, dim) or (batch, photos, dim), identity embeddings, as the encoder returned them; zeros where
            the identity is dropped. The step normalises and averages them as the adapter is configured.
        encoder: Name of the face encoder of `id_embeds`.
        target_embeds: (batch, dim), embeddings of the targets' faces by the encoder of the losses or rewards.
        reference_embeds: (batch, photos, dim), by the same encoder: the photos that generated faces are compared with,
            the target first. None for the target alone.
        by_encoder: Stored name → (batch, photos, dim), the same by the further encoders of losses or rewards.
        landmarks: (batch, 5, 2), landmarks of the targets, in pixels of the decoded latents.
        face_found: (batch,), whether the target shows a face.
        has_identity: (batch,), False where the identity is dropped. There, losses and rewards that compare with the
            person are 0.
        persons: (batch,), a number for each person; negative for a face of nobody in the data, and for a row that
            fills up a picture with fewer faces (`UNKNOWN` and `NOBODY` of `idgen.data.group_dataset`).
        is_reference: (batch,), False where the target's face is no reference of the person, as in a drawing: there,
            losses on predictions compare no face with the person. None for True everywhere.
        reliability: (batch,) in [0, 1], how reliably target and reference show the same person; None for 1 everywhere.
        time_ids: (batch, 6), original size, crop corner and target size, height first; for SDXL only.
        encoder_hidden_states: (batch, length, dim), the encoded prompts of `BaseModel.encode`, if they are cached.
        text_embeds: (batch, dim), the pooled text embeddings for SDXL.
        condition: (batch, 3, height, width) in [0, 1], the damaged pictures that a restorer reads.
        swapped: As `latents`, of the targets with another person's face (`idgen prepare --cache triplets`).
        beside: As `id_embeds`, by the shards' encoder, for a frozen adapter beside the one that is trained; zeros
            where both prompt and identity are dropped.

    Raises:
        TrainingError: The parts have different lengths.
    """

    latents: torch.Tensor
    prompts: tuple[str, ...]
    id_embeds: torch.Tensor
    encoder: str
    target_embeds: torch.Tensor
    landmarks: torch.Tensor
    face_found: torch.Tensor
    has_identity: torch.Tensor
    persons: torch.Tensor
    people: int = 1
    is_reference: torch.Tensor | None = None
    reliability: torch.Tensor | None = None
    reference_embeds: torch.Tensor | None = None
    by_encoder: Mapping[str, torch.Tensor] = field(default_factory=dict)
    time_ids: torch.Tensor | None = None
    encoder_hidden_states: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None
    condition: torch.Tensor | None = None
    swapped: torch.Tensor | None = None
    beside: torch.Tensor | None = None

    def __post_init__(self) -> None:
        each = {name: 1 if name in OF_PICTURES else self.people for name in self._tensors()}
        lengths = {name: len(value) / each[name] for name, value in self._tensors().items()}
        lengths |= {f"by_encoder[{name!r}]": len(value) / self.people for name, value in self.by_encoder.items()}
        lengths["prompts"] = len(self.prompts)
        if len(set(lengths.values())) != 1:
            raise TrainingError(f"The parts of a batch must have the same length, not {lengths}.")

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def known(self) -> torch.Tensor:
        """(batch, people), which faces are people of the data."""
        return self.by_picture(self.persons) >= 0

    def by_picture(self, of_faces: torch.Tensor) -> torch.Tensor:
        """(faces, …) → (batch, people, …)."""
        return of_faces.unflatten(0, (-1, self.people))

    def comparable(self, found: torch.Tensor) -> torch.Tensor:
        """(batch,), which of the faces that were found in predictions may be compared with the person."""
        return found if self.is_reference is None else found & self.is_reference

    def repeat(self, times: int) -> Self:
        """Repeat each sample, copies next to each other."""
        rows = [row for row in range(len(self)) for _ in range(times)]
        prompts = tuple(self.prompts[row] for row in rows)
        return self._map(lambda value: value.unflatten(0, (len(self), -1))[rows].flatten(0, 1), prompts=prompts)

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        return self._map(lambda value: value.to(device))

    def references(self) -> torch.Tensor:
        """(batch, photos, dim), `reference_embeds` or the targets."""
        return self.target_embeds[:, None] if self.reference_embeds is None else self.reference_embeds

    def compared_by(self, encoder: str) -> Self:
        """The same batch with another encoder's embeddings to compare with."""
        found = self.by_encoder[encoder]
        return replace(self, target_embeds=found[:, 0], reference_embeds=found)

    def _tensors(self) -> dict[str, torch.Tensor]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor], **others: Any) -> Self:
        changed: dict[str, Any] = {name: change(value) for name, value in self._tensors().items()}
        by_encoder = {name: change(value) for name, value in self.by_encoder.items()}
        return replace(self, **changed, by_encoder=by_encoder, **others)


class Batches(Protocol):
    """An endless stream of batches of one process that can be resumed exactly."""

    def __iter__(self) -> Iterator[Batch]:
        """Continue from the current position."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The position as JSON values, the same on all processes."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the position; the number of processes may be another."""
        ...
