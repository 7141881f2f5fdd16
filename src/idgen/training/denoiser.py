"""Stage one: denoise target pictures with the identity of a reference."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from ..adapter import IdentityAdapter, Person, RandomFusion
from ..losses import (
    AttentionRecorder,
    Bank,
    FaceDecoder,
    FaceEmbedder,
    LazyInputs,
    Weighted,
    WeightedTerms,
    mix_identities,
)
from ..losses.parametrisation import at_least_float32
from .base import BaseModel
from .batch import Batch
from .step import TrainingStep


class IdentityDenoiser(TrainingStep):
    """One training step as a module, so that accelerate can wrap it: batch → weighted losses.

    Args:
        base: See `TrainingStep`; so are `adapter` and `parts`.
        losses: Terms by name; they say what has to be computed.
        embedder: Face encoder of the identity losses, if there are any.
        decoder: Of faces, beside it.
        bank: Draws embeddings of other people, for the contrastive losses.
        fusion: Random weighing of text against identity, or none.
        gather: Collects a tensor of all processes, for negatives from the whole batch.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        losses: WeightedTerms,
        *,
        embedder: FaceEmbedder | None = None,
        decoder: FaceDecoder | None = None,
        bank: Callable[[torch.Tensor], Bank] | None = None,
        fusion: RandomFusion | None = None,
        gather: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
        **parts: Any,
    ) -> None:
        super().__init__(base, adapter, **parts)
        self.losses, self.embedder, self.decoder = losses, embedder, decoder
        self.bank, self.fusion, self.gather = bank, fusion, gather
        self._reads = losses.reads()

    def forward(self, batch: Batch, random: torch.Generator, stack: ExitStack) -> Weighted:
        """Evaluate the losses of a batch.

        Args:
            batch: On the base's device.
            random: On the processor; noise and timesteps come from it, the same on every device.
            stack: Keeps the identity in the UNet until it is closed: after the backward pass, in which a UNet with
                gradient checkpointing runs its layers again.
        """
        device = batch.latents.device
        steps = self.base.parametrisation.num_train_timesteps
        timesteps = torch.randint(steps, (len(batch),), generator=random).to(device)
        noise = torch.randn(batch.latents.shape, generator=random).to(device)
        noisy = self.base.scheduler.add_noise(batch.latents, noise, timesteps)
        constants = self._without_gradient(batch, noisy, timesteps, random)
        person = self.person(batch.id_embeds)
        text = self.base.read(batch, person)
        fusion = None if self.fusion is None else self.fusion.draw(len(batch), random)
        stack.enter_context(self.drawing(batch, person, fusion))
        recorder = self._recorder(stack, "with_id")
        output = self.predict(batch, noisy, timesteps, text)
        ready: dict[str, Any] = {
            **constants,
            "model_output": output,
            "latents": batch.latents,
            "noise": noise,
            "timesteps": timesteps,
            "target_embeds": batch.target_embeds,
            "persons": batch.persons,
            "face_found": batch.face_found,
        }
        words = [] if person is None else [words.flatten(1) for words in person.words if words is not None]
        if words:
            ready["pseudo_words"] = torch.cat(words, 1)
        if recorder is not None:
            ready["with_id"] = recorder.take()
        lazy: dict[str, Callable[[], Any]] = {
            "face_mask": lambda: face_mask(batch.landmarks / self.scale, batch.face_found, *batch.latents.shape[-2:]),
            "identity_values": lambda: self._values(person),
            "generated_embeds": lambda: self._embed(self.base.parametrisation.clean(output, noisy, timesteps), batch),
        }
        return self.with_words(self.losses(LazyInputs(ready, lazy), timesteps), person)

    def _without_gradient(
        self, batch: Batch, noisy: torch.Tensor, timesteps: torch.Tensor, random: torch.Generator
    ) -> dict[str, Any]:
        """What losses compare with; made before the identity is drawn, and by every process alike."""
        found: dict[str, Any] = {}
        if "negatives" in self._reads:
            found["negatives"] = self._negatives(batch)
        if not {"output_without_id", "without_id", "output_mixed_id"} & self._reads:
            return found
        with torch.no_grad(), ExitStack() as stack:
            text = self.base.read(batch)
            if {"output_without_id", "without_id"} & self._reads:
                recorder = self._recorder(stack, "without_id")
                with self.alone():
                    found["output_without_id"] = self.predict(batch, noisy, timesteps, text)
                if recorder is not None:
                    found["without_id"] = recorder.take()
            if "output_mixed_id" in self._reads:
                mixed = self.person(mix_identities(batch.id_embeds, random))
                with self.drawing(batch, mixed):
                    found["output_mixed_id"] = self.predict(batch, noisy, timesteps, text)
        return found

    def _recorder(self, stack: ExitStack, name: str) -> AttentionRecorder | None:
        return stack.enter_context(AttentionRecorder(self.base.unet)) if name in self._reads else None

    def _negatives(self, batch: Batch) -> Bank:
        """The targets of all processes, and people of the bank."""
        embeds, persons = self.gather(batch.target_embeds), self.gather(batch.persons)
        if self.bank is None:
            return Bank(embeds, persons)
        others = self.bank(batch.persons)
        if others.embeds.ndim == 3:
            rows = len(batch)
            embeds, persons = embeds.expand(rows, -1, -1), persons.expand(rows, -1)
        return Bank(
            torch.cat([embeds, others.embeds.to(embeds)], -2), torch.cat([persons, others.persons.to(persons)], -1)
        )

    def _values(self, person: Person | None) -> list[torch.Tensor]:
        """What the identity's branches say."""
        assert self.adapter is not None
        assert person is not None
        return list(self.adapter.values(person.tokens))

    def _embed(self, clean: torch.Tensor, batch: Batch) -> torch.Tensor:
        """x0 → embeddings of the faces at the targets' landmarks, (batch, dim)."""
        assert self.embedder is not None
        assert self.decoder is not None
        images, offsets = self.decoder(clean, self.embedder.boxes(batch.landmarks))
        return self.embedder(at_least_float32(images), batch.landmarks - offsets[:, None])


def face_mask(points: torch.Tensor, found: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Landmarks (batch, 5, 2) in latent pixels → (batch, 1, height, width), 1 in the box around each face."""
    middle = points.mean(1)
    reach = 1.25 * (points.amax(1) - points.amin(1)).amax(1)  # from the middle of the landmarks to hair and chin
    y = torch.arange(height, device=points.device) + 0.5
    x = torch.arange(width, device=points.device) + 0.5
    inside_y = (y[None] - middle[:, 1:]).abs() <= reach[:, None]
    inside_x = (x[None] - middle[:, :1]).abs() <= reach[:, None]
    mask = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return (mask & found[:, None, None, None]).float()
