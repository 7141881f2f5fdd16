"""Stage one: denoise target pictures with the identity of a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ..adapter import IdentityAdapter, IdentityTokens, RandomFusion
from ..errors import TrainingError
from ..faces import FaceDetector
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
from .base import BaseModel
from .batch import Batch
from .clean import clean_in_steps
from .generated import FaceReader, GeneratedFaces, ShortRollout
from .randomness import Generators, integers, normal, uniform
from .step import TrainingStep


class IdentityDenoiser(TrainingStep):
    """One training step as a module, so that accelerate can wrap it: batch → weighted losses.

    Args:
        base: See `TrainingStep`; so are `adapter` and `parts`.
        losses: Terms by name; they say what has to be computed.
        embedder: Face encoder of the identity losses, if there are any.
        decoder: Of faces, beside it.
        detector: Finds faces in what was predicted; without one they are where the target's are.
        clean_steps: Passes of the UNet from the noisy latent to the face.
        rollout: Draws the faces from pure noise instead; needs a detector.
        bank: Draws embeddings of other people, for the contrastive losses.
        prior: (n, dim), faces that the base model draws, for the triplet loss.
        edits: What is added to prompts, for the loss on editing directions.
        noise_offset: Noise that is the same all over a channel, as diffusers' training scripts add it.
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
        detector: FaceDetector | None = None,
        clean_steps: int = 1,
        rollout: ShortRollout | None = None,
        bank: Callable[[torch.Tensor], Bank] | None = None,
        prior: torch.Tensor | None = None,
        edits: Sequence[str] = (),
        noise_offset: float = 0.0,
        fusion: RandomFusion | None = None,
        gather: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
        **parts: Any,
    ) -> None:
        super().__init__(base, adapter, **parts)
        self.losses, self.embedder, self.decoder = losses, embedder, decoder
        self.detector, self.clean_steps, self.rollout = detector, clean_steps, rollout
        self.bank, self.prior, self.edits, self.noise_offset = bank, prior, edits, noise_offset
        self.fusion, self.gather = fusion, gather
        self._reads = losses.reads()
        if rollout is not None and detector is None:
            raise TrainingError("Faces drawn from pure noise are anywhere: a rollout needs a detector.")

    def forward(self, batch: Batch, random: Generators, stack: ExitStack) -> Weighted:
        """Evaluate the losses of a batch.

        Args:
            batch: On the base's device.
            random: On the CPU, for the batch or for each sample; noise and timesteps are drawn from it.
            stack: Keeps the identity in the UNet until it is closed: after the backward pass, in which a UNet with
                gradient checkpointing runs its layers again.
        """
        device = batch.latents.device
        steps = self.base.parametrisation.num_train_timesteps
        timesteps = integers(0, steps, len(batch), random).to(device)
        noise = normal(batch.latents.shape, random)
        if self.noise_offset:
            noise = noise + self.noise_offset * normal((*noise.shape[:2], 1, 1), random)
        noise = noise.to(device)
        noisy = self.base.scheduler.add_noise(batch.latents, noise, timesteps)
        edited = self._edited(batch, random) if "edited" in self._reads else ()
        constants = self._without_gradient(batch, noisy, timesteps, random, edited)
        person = self.person(batch)
        text = self.base.read(batch, person)
        fusion = None if self.fusion is None else self.fusion.at(uniform(len(batch), random))
        stack.enter_context(self.drawing(batch, person, fusion))
        recorder = self._recorder(stack, "with_id", "neutral")
        output = self.predict(batch, noisy, timesteps, text)
        ready: dict[str, Any] = {
            **constants,
            "model_output": output,
            "latents": batch.latents,
            "noise": noise,
            "timesteps": timesteps,
            "target_embeds": batch.target_embeds,
            "persons": batch.persons,
            "has_identity": batch.has_identity,
        }
        words = [] if person is None else [words.flatten(1) for words in person.words if words is not None]
        if words:
            ready["pseudo_words"] = torch.cat(words, 1)
        if recorder is not None:
            ready["with_id"] = ready["neutral"] = recorder.take()
            if edited:
                self.predict(batch, noisy, timesteps, self.base.encode(edited, person))
                ready["edited"] = recorder.take()
        if "token_positions" in self._reads:
            ready |= self._places(batch, person)

        def clean() -> torch.Tensor:
            if self.rollout is not None:
                return self._draw(self.rollout, batch, person, random)
            again = partial(self.predict, batch, text=text)
            return clean_in_steps(self.base.parametrisation, again, output, noisy, timesteps, self.clean_steps)

        lazy: dict[str, Callable[[], Any]] = {
            "face_mask": lambda: self._mask(batch),
            "identity_values": lambda: self._values(person),
            "faces": lambda: self._faces(clean(), batch),
            "generated_embeds": lambda: inputs["faces"].embeds,
            "face_found": lambda: batch.face_found if self.detector is None else inputs["faces"].found,
        }
        inputs = LazyInputs(ready, lazy)
        return self.with_words(self.losses(inputs, timesteps), person)

    def _without_gradient(
        self,
        batch: Batch,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        random: Generators,
        edited: Sequence[str],
    ) -> dict[str, Any]:
        """What losses compare with; made before the identity is drawn, and by every process alike."""
        found: dict[str, Any] = {}
        if "negatives" in self._reads:
            found["negatives"] = self._negatives(batch)
        if "prior_embeds" in self._reads:
            if self.prior is None:
                raise TrainingError("The triplet loss compares with faces that the base model draws: give `prior`.")
            chosen = integers(0, len(self.prior), len(batch), random)
            found["prior_embeds"] = self.prior[chosen].to(batch.latents.device)
        alone = {"output_without_id", "without_id", "neutral_without_id"} & self._reads
        if not alone and "output_mixed_id" not in self._reads:
            return found
        with torch.no_grad(), ExitStack() as stack:
            text = self.base.read(batch)
            if alone:
                recorder = self._recorder(stack, "without_id", "neutral_without_id")
                with self.alone():
                    found["output_without_id"] = self.predict(batch, noisy, timesteps, text)
                    if recorder is not None:
                        found["without_id"] = found["neutral_without_id"] = recorder.take()
                    if recorder is not None and edited:
                        self.predict(batch, noisy, timesteps, self.base.encode(edited))
                        found["edited_without_id"] = recorder.take()
            if "output_mixed_id" in self._reads:
                mixed_embeds = mix_identities(batch.id_embeds, uniform(len(batch), random))
                mixed = self.person(replace(batch, id_embeds=mixed_embeds))
                with self.drawing(batch, mixed):
                    found["output_mixed_id"] = self.predict(batch, noisy, timesteps, text)
        return found

    def _edited(self, batch: Batch, random: Generators) -> tuple[str, ...]:
        """The batch's prompts, each with an edit."""
        if not self.edits:
            raise TrainingError("The loss on editing directions needs edits, words that are added to the prompts.")
        chosen = integers(0, len(self.edits), len(batch), random).tolist()
        return tuple(f"{prompt}, {self.edits[i]}" for prompt, i in zip(batch.prompts, chosen, strict=True))

    def _draw(
        self, short: ShortRollout, batch: Batch, person: IdentityTokens | None, random: Generators
    ) -> torch.Tensor:
        """Clean latents drawn from pure noise in a few steps, with their graph."""
        text = self.base.encode([short.prompt] * len(batch), person)
        noise = normal(batch.latents.shape, random).to(batch.latents)
        with nullcontext() if short.distilled is None else short.distilled.acting():
            return short.rollout(lambda x, t: self.predict(batch, x, t.expand(len(x)), text), noise, random).latents

    def _places(self, batch: Batch, person: IdentityTokens | None) -> dict[str, torch.Tensor]:
        """Where the prompts name the person, and the face that these words shall attend to."""
        assert person is not None
        places, named = self.base.word_places(batch.prompts, person)
        masks = self._mask(batch) * named.view(-1, 1, 1, 1)
        return {"token_positions": places, "token_masks": masks.expand(-1, places.shape[1], -1, -1)}

    def _mask(self, batch: Batch) -> torch.Tensor:
        return face_mask(batch.landmarks / self.scale, batch.face_found, *batch.latents.shape[-2:])

    def _recorder(self, stack: ExitStack, *names: str) -> AttentionRecorder | None:
        return stack.enter_context(AttentionRecorder(self.base.unet)) if self._reads & {*names} else None

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

    def _values(self, person: IdentityTokens | None) -> list[torch.Tensor]:
        """What the identity's branches say."""
        assert self.adapter is not None
        assert person is not None
        return list(self.adapter.values(person.tokens))

    def _faces(self, clean: torch.Tensor, batch: Batch) -> GeneratedFaces:
        """x0 → the faces in it."""
        assert self.embedder is not None
        assert self.decoder is not None
        reader = FaceReader(embedder=self.embedder, decoder=self.decoder, detector=self.detector)
        return reader(clean, batch.landmarks, batch.face_found)


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
