"""What the losses of stage one may read."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from ..adapter import IdentityTokens
from ..errors import TrainingError
from ..losses import AttentionRecorder, Recording, mix_identities
from .batch import Batch
from .encoding import encode_with
from .face_inputs import FaceInputs, OtherEncoderInputs
from .faces import FacesWanted, GeneratedFaces
from .randomness import Generators, integers, normal, uniform
from .rollout import Predict, predict_x0
from .token_inputs import TokenInputs

if TYPE_CHECKING:
    from .denoiser import IdentityDenoiser

BEFORE_ACTIVATION = (
    *("negatives", "prior_embeds", "mixing"),
    *("output_without_id", "without_id", "edited_without_id", "output_mixed_id", "older_embeds"),
    "latents_without_id",
)
"""Inputs that are computed before the identity is active, in this order, and by every process alike: `negatives` are
gathered from all processes."""


class Predictions(NamedTuple):
    """The UNet's passes with or without the identity.

    Attributes:
        output: (batch, channels, height, width).
        attention: Cross-attention layers of that pass; empty if no loss reads them.
        edited: Cross-attention layers of the pass with the edited prompts; empty if no loss reads them.
    """

    output: torch.Tensor
    attention: Recording
    edited: Recording


class DenoisingInputs(TokenInputs, FaceInputs):
    """Inputs of the losses for one batch; what is not set in the constructor is computed when it is first read.

    Args:
        step: The networks, and the losses, which decide what is recorded in the UNet.
        batch: Targets and identities.
        random: Timesteps, noise and all further random numbers are drawn from it.

    Attributes:
        latents: x0 of the targets, (batch, channels, height, width).
        timesteps: t, (batch,) integers.
        noise: ε, as `latents`.
        noisy_latents: x_t, as `latents`.
        target_embeds: (batch, dim), embeddings of the targets' faces.
        reference_embeds: (batch, photos, dim), of the photos to compare with, the target first.
        persons: (batch,), a number for each person.
        has_identity: (batch,), False where the identity was dropped.
        reliability: (batch,), how reliably target and reference show the same person; only if the step weighs by it.
        known: (batch, people), which faces are people of the data; only if pictures show several people.
    """

    def __init__(self, step: IdentityDenoiser, batch: Batch, random: Generators) -> None:
        self._step, self._batch, self._random, self._reads = step, batch, random, step.losses.reads()
        scheduler, device = step.base.scheduler, batch.latents.device
        self.timesteps = step.draw_timesteps(len(batch), random).to(device)
        noise = normal(batch.latents.shape, random)
        if step.noise_offset:
            noise = noise + step.noise_offset * normal((*noise.shape[:2], 1, 1), random)
        self.latents, self.noise = batch.latents, noise.to(device)
        self.noisy_latents: torch.Tensor = scheduler.add_noise(self.latents, self.noise, self.timesteps)
        self.target_embeds, self.reference_embeds = batch.target_embeds, batch.references()
        self.persons, self.has_identity = batch.persons, batch.has_identity
        if batch.people > 1:  # rows of nobody have the number of a person too, and count for nothing
            self.persons, self.known = batch.persons.clamp(min=0), batch.known
        self._others: dict[str, OtherEncoderInputs] = {}
        if step.reliability and batch.reliability is not None:
            self.reliability = batch.reliability
        self._edited_prompts = self._edit() if self._reads & {"edited", "edited_without_id"} else ()

    def by(self, encoder: str) -> FaceInputs:
        """The inputs as a face encoder of the losses sees them."""
        if encoder not in self._step.others:
            return self
        if encoder not in self._others:
            self._others[encoder] = OtherEncoderInputs(self, encoder)
        return self._others[encoder]

    # -- without the identity, or with another: constants

    @cached_property
    def mixing(self) -> torch.Tensor:
        """(batch,), drawn from Beta(2, 2): the distribution of the second of three uniform numbers."""
        three = torch.stack([uniform(len(self._batch), self._random) for _ in range(3)])
        return three.median(0).values.to(self.latents.device).repeat_interleave(self._batch.people)

    @cached_property
    def output_without_id(self) -> torch.Tensor:
        """(batch, channels, height, width), the base model's prediction."""
        return self._without_id.output

    @cached_property
    def latents_without_id(self) -> torch.Tensor:
        """(batch, channels, height, width), x0 as the base model predicts it."""
        step, batch = self._step, self._batch
        with torch.no_grad(), step.base_only():
            text = self._read(None)
            return self._predicted_x0(self.output_without_id, partial(step.predict, batch, text=text))

    @cached_property
    def without_id(self) -> Recording:
        """Cross-attention layers of the base model."""
        return self._without_id.attention

    @cached_property
    def edited_without_id(self) -> Recording:
        """Cross-attention layers of the base model with the edited prompts."""
        return self._without_id.edited

    @cached_property
    def output_mixed_id(self) -> torch.Tensor:
        """(batch, channels, height, width), the prediction for mixed identities (see `mix_identities`), or with
        directions for the same people with other attributes."""
        step, batch = self._step, self._batch
        embeds = batch.by_picture(batch.id_embeds)  # the first person of a picture with the first one of another
        if step.directions:
            for direction in step.directions:
                amounts = (2 * uniform(len(batch), self._random) - 1).to(embeds)
                embeds = direction.move(embeds, amounts.view(-1, *[1] * (embeds.ndim - 2)))
        else:
            embeds = mix_identities(embeds, uniform(len(batch), self._random))
        with torch.no_grad():
            text = self._read(None)
            mixed = step.encode(replace(batch, id_embeds=embeds.flatten(0, 1)))
            with step.activate(batch, mixed):
                return step.predict(batch, self.noisy_latents, self.timesteps, text)

    @cached_property
    def _older_latents(self) -> torch.Tensor:
        step, batch, older = self._step, self._batch, self._step.older
        with torch.no_grad(), step.base_only():
            identity = encode_with(older, batch)
            predict = partial(step.predict, batch, text=self._read(identity))
            with older.activate(identity.by_person(batch.people), len(batch), **step.places(batch)):
                output = predict(self.noisy_latents, self.timesteps)
                return self._predicted_x0(output, predict)

    # -- with the identity

    @cached_property
    def model_output(self) -> torch.Tensor:
        """(batch, channels, height, width), the prediction."""
        return self._with_id.output

    @cached_property
    def with_id(self) -> Recording:
        """Cross-attention layers of the prediction."""
        return self._with_id.attention

    @cached_property
    def edited(self) -> Recording:
        """Cross-attention layers of a prediction with the edited prompts."""
        return self._with_id.edited

    @cached_property
    def predicted_latents(self) -> torch.Tensor:
        """x0 as predicted, or of a short rollout, (batch, channels, height, width)."""
        step, batch, short = self._step, self._batch, self._step.rollout
        if short is None:
            return self._predicted_x0(self.model_output, partial(step.predict, batch, text=self._text))
        text = step.base.encode([short.prompt] * len(batch), self.beside or self.identity, batch.people)
        noise = normal(batch.latents.shape, self._random).to(batch.latents)
        with nullcontext() if short.distilled is None else short.distilled.activate():
            return short.rollout(
                lambda x, t: step.predict(batch, x, t.expand(len(x)), text), noise, self._random
            ).latents

    @cached_property
    def _faces(self) -> GeneratedFaces:
        return self._reader(self.predicted_latents, FacesWanted.of(self._batch))

    @cached_property
    def _chosen_prior(self) -> torch.Tensor:
        assert self._step.prior is not None
        return integers(0, len(self._step.prior), len(self._batch), self._random)

    def _predicted_x0(self, output: torch.Tensor, predict: Predict) -> torch.Tensor:
        """x0 of the noisy latents, where `output` is the first prediction."""
        step, noisy, t = self._step, self.noisy_latents, self.timesteps
        return predict_x0(step.base.parametrisation, predict, output, noisy, t, step.x0_steps)

    @cached_property
    def _text(self) -> dict[str, torch.Tensor]:
        return self._read(self.identity)

    def _read(self, identity: IdentityTokens | None) -> dict[str, torch.Tensor]:
        """The encoded prompts. `<id>` is the person of the adapter beside the trained one, if there is one."""
        return self._step.base.read(self._batch, self.beside or identity)

    @cached_property
    def _with_id(self) -> Predictions:
        return self._predict(self._text, self.identity, "with_id", "edited")

    @cached_property
    def _without_id(self) -> Predictions:
        with torch.no_grad(), self._step.base_only():
            return self._predict(self._read(None), None, "without_id", "edited_without_id")

    def _predict(
        self, text: dict[str, torch.Tensor], identity: IdentityTokens | None, attention: str, edited: str
    ) -> Predictions:
        """Predict; if a loss reads one of the two inputs of these names, record the cross-attention layers."""
        base = self._step.base
        predict = partial(self._step.predict, self._batch, self.noisy_latents, self.timesteps)
        if not self._reads & {attention, edited}:
            return Predictions(predict(text), {}, {})
        # a recorder's hooks come and go: compiled code would not call them
        with torch.compiler.set_stance("force_eager"), AttentionRecorder(base.unet) as recorder:
            output, recorded = predict(text), recorder.take()
            if edited not in self._reads:
                return Predictions(output, recorded, {})
            predict(base.encode(self._edited_prompts, self.beside or identity, self._batch.people))
            return Predictions(output, recorded, recorder.take())

    def _edit(self) -> tuple[str, ...]:
        """The prompts, each with a random edit."""
        edits, batch = self._step.edits, self._batch
        if not edits:
            raise TrainingError("The loss on editing directions needs edits, words that are added to the prompts.")
        chosen = integers(0, len(edits), len(batch), self._random).tolist()
        return tuple(f"{prompt}, {edits[i]}" for prompt, i in zip(batch.prompts, chosen, strict=True))
