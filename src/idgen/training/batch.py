"""What a training step reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Protocol, Self

import torch

from ..errors import TrainingError


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Target pictures, and the person that each of them is drawn from.

    Attributes:
        latents: (batch, channels, height, width), of the target as the UNet sees it (scaled).
        prompts: One for each; empty where the text is dropped.
        id_embeds: (batch, dim) or (batch, photos, dim), embeddings of the person, as they left the encoder; zeros
            where the identity is dropped. The step scales and averages them as the adapter's configuration says.
        encoder: Name of the face encoder of `id_embeds`.
        target_embeds: (batch, dim), the target's own face by the encoder of the losses.
        landmarks: (batch, 5, 2), of the target in pixels of the picture that its latent decodes to.
        face_found: (batch,), whether the target shows a face.
        has_identity: (batch,), whether the identity is used. Where it is dropped, nothing that compares with the
            person counts: no identity loss and no identity reward.
        persons: (batch,), a number for each person.
        is_reference: (batch,), whether the target's own face shows how the person looks; losses on single predictions
            compare no face with the person where it does not (a drawing). All do if not given.
        time_ids: (batch, 6), original size, crop corner and target size, height first; read by SDXL only.
        encoder_hidden_states: (batch, length, dim), what `BaseModel.encode` makes of the prompts, if it is cached.
        text_embeds: (batch, dim), beside it for SDXL.

    Raises:
        TrainingError: The parts are not equally long.
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
            raise TrainingError(f"The parts of a batch must be equally long, not {lengths}.")

    def __len__(self) -> int:
        return len(self.prompts)

    def comparable(self, found: torch.Tensor) -> torch.Tensor:
        """(batch,), which of the faces that were found in predictions may be compared with the person."""
        return found if self.is_reference is None else found & self.is_reference

    def repeat(self, times: int) -> Self:
        """Each sample so many times in a row."""
        rows = [row for row in range(len(self)) for _ in range(times)]
        repeated: dict[str, Any] = {
            field.name: value[rows] if isinstance(value := getattr(self, field.name), torch.Tensor) else value
            for field in fields(self)
        }
        return type(self)(**{**repeated, "prompts": tuple(self.prompts[row] for row in rows)})

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device) if isinstance(value := getattr(self, field.name), torch.Tensor) else value
            for field in fields(self)
        }
        return type(self)(**moved)


class Batches(Protocol):
    """An endless stream of batches of one process, which can stop anywhere and go on exactly there."""

    def __iter__(self) -> Iterator[Batch]:
        """Go on from where the stream is."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, as values that JSON can hold; the same on all processes."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there, with any number of processes."""
        ...
