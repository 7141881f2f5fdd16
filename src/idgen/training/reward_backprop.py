"""Stage two with a gradient: generate pictures and propagate their rewards back (ID-Aligner, arXiv 2404.15449)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..adapter import IdentityAdapter, IdentityTokens
from ..faces import FaceDetector
from ..losses import DenoisingLoss, FaceDecoder, FaceEmbedder, Term, Weighted, WeightedTerms
from ..losses.preservation import base_preservation_loss
from ..losses.style import style_preservation_loss
from ..rewards import WeightedRewards
from .base import BaseModel
from .batch import Batch
from .faces import face_mask
from .methods import BackpropConfig, FromNoiseConfig
from .randomness import Generators, integers, normal
from .reward_inputs import DifferentiableInputs
from .rollout import Generated
from .step import TrainingStep


class RewardStep(TrainingStep):
    """One training step: batch → generated pictures → their negated rewards, and a preservation loss.

    Args:
        base: See `TrainingStep`; so are `adapter` and `parts`.
        rewards: See `DifferentiableInputs` for what they may read.
        config: Settings of the method.
        embedders: Face encoders of the identity reward.
        decoder: Decodes the faces.
        detector: Finds the faces in the pictures.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        rewards: WeightedRewards,
        config: BackpropConfig,
        *,
        embedders: Sequence[FaceEmbedder],
        decoder: FaceDecoder,
        detector: FaceDetector,
        **parts: Any,
    ) -> None:
        super().__init__(base, adapter, **parts)
        self.rewards, self.config = rewards, config
        if isinstance(config, FromNoiseConfig):
            self.rollout = config.make_rollout(base.pipeline.scheduler)
        self.embedders, self.decoder, self.detector = embedders, decoder, detector

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """Generate a picture for each sample and reward it; arguments as of `IdentityDenoiser.forward`.

        Of the batch's latents only the shape is used, except by losses on the photos.
        """
        identity = self.encode(batch)
        text = self._text(batch, identity)
        self.hold(self.activate(batch, identity))
        generated = self.generate(batch, text, random)
        inputs = DifferentiableInputs(self.base, generated.latents, batch, self.embedders, self.decoder, self.detector)
        rewarded = self.rewards(inputs)
        values, terms = -rewarded.values, rewarded.terms  # negated, since the loop minimises
        if self.config.preservation:
            kept = self._preservation(generated, text, batch, inputs)
            values, terms = values + kept.values, terms | kept.terms
        values, rewards = (part.unflatten(0, (-1, len(batch))).mean(0) for part in (values, -rewarded.values))
        for further in self.further_losses(batch, identity, generated, random):
            values, terms = values + further.values, terms | further.terms
        alone = terms.keys() == rewarded.terms.keys()
        return self.connected(Weighted(values, terms, None if alone else rewards), identity)

    def generate(self, batch: Batch, text: dict[str, torch.Tensor], random: Generators) -> Generated:
        """Generate a picture for each sample, with its graph.

        Args:
            batch: Its latents give the shape.
            text: The encoded prompts, see `_text`.
            random: Generators.
        """
        noise = normal(batch.latents.shape, random).to(batch.latents)

        def predict(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self._predict(noisy, t, text, batch)

        generated = self.rollout(predict, noise, random)
        assert isinstance(self.config, FromNoiseConfig)
        if not self.config.style:
            return generated
        with self.base_only():
            return generated._replace(without_id=self.rollout.sample(predict, noise, random))

    def further_losses(
        self, batch: Batch, identity: IdentityTokens | None, generated: Generated, random: Generators
    ) -> Iterator[Weighted]:
        """Losses beside the rewards, one value per sample each."""
        if self.config.denoising:
            yield self._denoising(batch, identity, random)
        if isinstance(self.config, FromNoiseConfig) and generated.without_id is not None:
            terms = WeightedTerms({"style": Term(style_preservation_loss, self.config.style)})
            copies = len(generated.latents) // len(batch)
            x0 = {"x0": generated.latents, "x0_without_id": generated.without_id.repeat(copies, 1, 1, 1)}
            found = terms(x0)
            yield found._replace(values=found.values.unflatten(0, (copies, -1)).mean(0))

    def _text(self, batch: Batch, identity: IdentityTokens | None) -> dict[str, torch.Tensor]:
        """The encoded prompts; with guidance the half of the empty prompt first."""
        positive = self.base.read(batch, identity)
        if self.config.guidance_scale == 1:
            return positive
        negative = self.base.encode([""] * len(batch))
        return {name: torch.cat([negative[name], part]) for name, part in positive.items()}

    def _predict(
        self, noisy: torch.Tensor, t: torch.Tensor, text: dict[str, torch.Tensor], batch: Batch
    ) -> torch.Tensor:
        """The prediction for one picture per sample, guidance included."""
        scale = self.config.guidance_scale
        t = t.expand(len(noisy))
        if scale == 1:
            return self.predict(batch, noisy, t, text)
        both = self.predict(batch, noisy.repeat(2, 1, 1, 1), t.repeat(2), text)
        negative, positive = both.chunk(2)
        return negative + scale * (positive - negative)

    def _preservation(
        self, generated: Generated, text: dict[str, torch.Tensor], batch: Batch, inputs: DifferentiableInputs
    ) -> Weighted:
        """The distance of the last prediction from the base model's outside the face."""
        copies = len(generated.latents) // len(batch)
        with torch.no_grad(), self.base_only():
            rows = generated.noisy.chunk(copies)
            without_id = torch.cat([self._predict(noisy, generated.timestep, text, batch) for noisy in rows])
        points = inputs.face_points / self.decoder.scale
        height, width = generated.noisy.shape[-2:]
        masks = face_mask(points, inputs.face_found, height, width)
        mask = masks.unflatten(0, (-1, batch.people)).amax(1)
        terms = WeightedTerms({"preservation": Term(base_preservation_loss, self.config.preservation)})
        return terms({"model_output": generated.output, "output_without_id": without_id, "face_mask": mask})

    def _denoising(self, batch: Batch, identity: IdentityTokens | None, random: Generators) -> Weighted:
        """The denoising loss of the targets."""
        parametrisation = self.base.parametrisation
        timesteps = integers(0, parametrisation.num_train_timesteps, len(batch), random)
        noise = normal(batch.latents.shape, random).to(batch.latents)
        timesteps = timesteps.to(batch.latents.device)
        noisy = self.base.scheduler.add_noise(batch.latents, noise, timesteps)
        output = self.predict(batch, noisy, timesteps, self.base.read(batch, identity))
        loss = DenoisingLoss(parametrisation=parametrisation)
        return WeightedTerms({"denoising": Term(loss, self.config.denoising)})(
            {"model_output": output, "latents": batch.latents, "noise": noise, "timesteps": timesteps}
        )
