"""Stage two: draw people, judge the pictures, and learn from the judgement (ID-Aligner, arXiv 2404.15449)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch

from ..adapter import IdentityAdapter, IdentityTokens
from ..faces import FaceDetector
from ..losses import (
    DenoisingLoss,
    FaceDecoder,
    FaceEmbedder,
    Landmarks,
    LazyInputs,
    Term,
    TermLog,
    Weighted,
    WeightedTerms,
    WholePictures,
    find_landmarks,
)
from ..losses.parametrisation import at_least_float32
from ..losses.preservation import base_preservation_loss
from ..rewards import WeightedRewards
from .base import BaseModel
from .batch import Batch
from .denoiser import face_mask
from .randomness import Generators, integers, normal
from .rollout import Drawn, Rollout
from .step import TrainingStep


class RewardStep(TrainingStep):
    """One training step as a module: batch → rewards of pictures drawn for it, negated, and a preservation term.

    Args:
        base: See `TrainingStep`; so are `adapter` and `parts`.
        rollout: Draws.
        rewards: Judge; the identity reward reads `face_images`, `landmarks` and `reference_embeds`, others may read
            `images` and `prompts`.
        embedder: Face encoder of the identity reward.
        decoder: Of faces.
        detector: Finds the faces in what was drawn.
        preservation: Weight of "outside the face, as the base model": reward alone costs prompt fidelity.
        denoising: Weight of denoising the targets beside it (ReFL's pre-training loss, ID-Aligner's LoRA mode).
        guidance_scale: Of the drawing; 1 is cheapest, and what ReFL and ID-Aligner do.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        rollout: Rollout,
        rewards: WeightedRewards,
        *,
        embedder: FaceEmbedder,
        decoder: FaceDecoder,
        detector: FaceDetector,
        preservation: float = 1.0,
        denoising: float = 0.0,
        guidance_scale: float = 1.0,
        **parts: Any,
    ) -> None:
        super().__init__(base, adapter, **parts)
        self.rollout, self.rewards = rollout, rewards
        self.embedder, self.decoder, self.detector = embedder, decoder, detector
        self.preservation, self.denoising, self.guidance_scale = preservation, denoising, guidance_scale

    def forward(self, batch: Batch, random: Generators, stack: ExitStack) -> Weighted:
        """Draw a picture for each sample and judge it; arguments as of `IdentityDenoiser.forward`.

        The batch's latents serve for their shape alone, but for `denoising`.
        """
        person = self.person(batch)
        text = self._text(batch, person)
        stack.enter_context(self.drawing(batch, person))
        noise = normal(batch.latents.shape, random).to(batch.latents)
        drawn = self.rollout(lambda noisy, t: self._predict(noisy, t, text, batch), noise, random)
        copies = len(drawn.latents) // len(batch)
        whole = self.decoder.whole(drawn.latents)
        faces = find_landmarks(whole.images, self.detector)
        found = self.rewards(self._judged(drawn.latents, whole, faces, batch, copies))
        values, terms = -found.values, found.terms  # negated: the loop makes things smaller
        if self.preservation:
            kept = self._kept(drawn, text, batch, faces, copies)
            values = values + kept.values
            terms = terms | kept.terms
        values = values.unflatten(0, (copies, -1)).mean(0)
        if self.denoising:
            denoised = self._denoised(batch, person, random)
            values, terms = values + denoised.values, terms | denoised.terms
        return self.with_words(Weighted(values, terms), person)

    def _text(self, batch: Batch, person: Any) -> dict[str, torch.Tensor]:
        """What the UNet reads; with guidance the empty prompt's half first."""
        positive = self.base.read(batch, person)
        if self.guidance_scale == 1:
            return positive
        negative = self.base.encode([""] * len(batch))
        return {name: torch.cat([negative[name], part]) for name, part in positive.items()}

    def _predict(
        self, noisy: torch.Tensor, t: torch.Tensor, text: dict[str, torch.Tensor], batch: Batch
    ) -> torch.Tensor:
        """The prediction for one picture a sample, guidance included."""
        if self.guidance_scale == 1:
            return self.predict(batch, noisy, t.expand(len(noisy)), text)
        both = self.predict(batch, noisy.repeat(2, 1, 1, 1), t.expand(2 * len(noisy)), text)
        negative, positive = both.chunk(2)
        return negative + self.guidance_scale * (positive - negative)

    def _judged(
        self, latents: torch.Tensor, whole: WholePictures, faces: Landmarks, batch: Batch, copies: int
    ) -> LazyInputs:
        """What rewards read of the pictures."""
        ready = {
            "reference_embeds": batch.target_embeds.repeat(copies, 1),
            "prompts": batch.prompts * copies,
            "face_found": faces.found,
            "has_identity": batch.has_identity.repeat(copies),
        }
        lazy: dict[str, Callable[[], Any]] = {
            "images": lambda: self.base.decode(latents),
            "crops": lambda: self.decoder(latents, self.embedder.boxes(faces.points), whole),
            "face_images": lambda: at_least_float32(inputs["crops"].images),
            "landmarks": lambda: faces.points - inputs["crops"].offsets[:, None],
        }
        inputs = LazyInputs(ready, lazy)
        return inputs

    def _kept(
        self, drawn: Drawn, text: dict[str, torch.Tensor], batch: Batch, faces: Landmarks, copies: int
    ) -> Weighted:
        """How far the last prediction is from the base model's outside the face."""
        with torch.no_grad(), self.alone():
            rows = drawn.noisy.chunk(copies)
            without = torch.cat([self._predict(noisy, drawn.timestep, text, batch) for noisy in rows])
        mask = face_mask(faces.points / self.decoder.scale, faces.found, *drawn.noisy.shape[-2:])
        values = base_preservation_loss(drawn.output, without, mask)
        size = torch.tensor(float(len(values)), device=values.device)
        return Weighted(self.preservation * values, {"preservation": TermLog(values.detach().sum(), size, 0 * size)})

    def _denoised(self, batch: Batch, person: IdentityTokens | None, random: Generators) -> Weighted:
        """The error of denoising the targets."""
        parametrisation = self.base.parametrisation
        timesteps = integers(0, parametrisation.num_train_timesteps, len(batch), random)
        noise = normal(batch.latents.shape, random).to(batch.latents)
        timesteps = timesteps.to(batch.latents.device)
        noisy = self.base.scheduler.add_noise(batch.latents, noise, timesteps)
        output = self.predict(batch, noisy, timesteps, self.base.read(batch, person))
        loss = DenoisingLoss(parametrisation=parametrisation)
        return WeightedTerms({"denoising": Term(loss, self.denoising)})(
            {"model_output": output, "latents": batch.latents, "noise": noise, "timesteps": timesteps}, timesteps
        )
