"""The batches of a training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import torch

from ..errors import TrainingError


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Target pictures with their identities.

    Attributes:
        latents: (batch, channels, height, width), latents of the targets, scaled for the UNet.
        prompts: One prompt per sample; empty where the text is dropped.
        id_embeds: (batch, dim) or (batch, photos, dim), identity embeddings, as the encoder returned them; zeros where
            the identity is dropped. The step normalises and averages them as the adapter is configured.
        encoder: Name of the face encoder of `id_embeds`.
        target_embeds: (batch, dim), embeddings of the targets' faces by the encoder of the losses.
        landmarks: (batch, 5, 2), landmarks of the targets, in pixels of the decoded latents.
        face_found: (batch,), whether the target shows a face.
        has_identity: (batch,), False where the identity is dropped. There, losses and rewards that compare with the
            person are 0.
        persons: (batch,), a number for each person.
        is_reference: (batch,), False where the target's face is no reference of the person, as in a drawing: there,
            losses on predictions compare no face with the person. None for True everywhere.
        reliability: (batch,) in [0, 1], how reliably target and reference show the same person; None for 1 everywhere.
        time_ids: (batch, 6), original size, crop corner and target size, height first; for SDXL only.
        encoder_hidden_states: (batch, length, dim), the encoded prompts of `BaseModel.encode`, if they are cached.
        text_embeds: (batch, dim), the pooled text embeddings for SDXL.

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
    is_reference: torch.Tensor | None = None
    reliability: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None
    encoder_hidden_states: torch.Tensor | None = None
    text_embeds: torch.Tensor | None = None

    def __post_init__(self) -> None:
        lengths = {
            field.name: len(value)
            for field in fields(self)
            if field.name != "encoder" and (value := getattr(self, field.name)) is not None
        }
        if len(set(lengths.values())) != 1:
            raise TrainingError(f"The parts of a batch must have the same length, not {lengths}.")

    def __len__(self) -> int:
        return len(self.prompts)

    def comparable(self, found: torch.Tensor) -> torch.Tensor:
        """(batch,), which of the faces that were found in predictions may be compared with the person."""
        return found if self.is_reference is None else found & self.is_reference

    def repeat(self, times: int) -> Self:
        """Repeat each sample, copies next to each other."""
        rows = [row for row in range(len(self)) for _ in range(times)]
        repeated: dict[str, Any] = {
            field.name: value[rows] if isinstance(value := getattr(self, field.name), torch.Tensor) else value
            for field in fields(self)
        }
        return type(self)(**{**repeated, "prompts": tuple(self.prompts[row] for row in rows)})

    def to(self, device: torch.device) -> Self:
        """The same batch on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device) if isinstance(value := getattr(self, field.name), torch.Tensor) else value
            for field in fields(self)
        }
        return type(self)(**moved)


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
