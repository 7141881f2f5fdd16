"""Stage one: denoise target photos with the identity of a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ..adapter import IdentityAdapter, RandomFusion
from ..attributes import Direction
from ..errors import TrainingError
from ..faces import FaceDetector
from ..faces.part_names import FacePart
from ..losses import Bank, FaceDecoder, FaceEmbedder, Weighted, WeightedTerms, learned_parts
from .base import BaseModel
from .batch import Batch
from .denoising_inputs import BEFORE_ACTIVATION, DenoisingInputs
from .faces import FaceReader
from .randomness import Generators, integers, lognormal_timesteps, uniform
from .rollout import ShortRollout
from .step import TrainingStep


class LossEncoder(NamedTuple):
    """A further face encoder of the losses.

    Attributes:
        embedder: The encoder.
        bank: See `IdentityDenoiser`; so is `prior`.
    """

    embedder: FaceEmbedder
    bank: Callable[[torch.Tensor], Bank] | None = None
    prior: torch.Tensor | None = None


class IdentityDenoiser(TrainingStep):
    """One training step of stage one: batch → noise → prediction → losses.

    Args:
        base: See `TrainingStep`; so are `adapter` and `parts`.
        losses: The losses; only what they read is computed.
        embedder: Face encoder, for losses on faces.
        decoder: Decoder of faces, for losses on faces.
        detector: Finds the faces in predictions. Without a detector they are assumed at the landmarks of the targets.
        x0_steps: Denoising steps from the noisy latent to the predicted picture.
        rollout: Generates the faces from noise instead; needs a detector.
        bank: Draws embeddings of other people, for the contrastive losses.
        prior: (n, dim), embeddings of faces that the base model generated, for the triplet loss.
        beside: A frozen adapter attached to the base's UNet that gives the person. It belongs to what the trained one
            acts on: it is active in all predictions, also in those without the trained one that losses compare with.
        older: An adapter attached to the base's UNet whose faces are compared with, for the relation loss.
        group_means: (1 + groups, dim), mean embeddings of all people and of each group, for the orthogonality loss.
        others: Further face encoders of the losses.
        edits: Words that are added to prompts, for the loss on editing directions.
        directions: Attributes along which the background loss moves people, instead of mixing them.
        word_parts: The part of the face that each pseudo-word attends to, for the localisation loss; empty for the
            face.
        find_parts: A batch and names of parts → masks, (faces, parts, height, width) at the resolution of the latents.
            A face parser, for example on the decoded latents; ellipses around the landmarks if not given.
        noise_offset: Strength of noise that is constant over a channel, as in diffusers' training scripts.
        reliability: Whether losses that compare with the person are multiplied by the reliability of the pairs.
        lognormal: Mean and standard deviation of the logarithm of the noise level, for log-normal timesteps; None for
            uniform ones.
        fusion: Weights text against identity at random.
        gather: Collects a tensor of all processes, for negatives from the whole batch.

    Raises:
        TrainingError: There is a rollout and no detector, or a rollout and an older adapter; or `word_parts` does not
            name a part for each pseudo-word.
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
        x0_steps: int = 1,
        rollout: ShortRollout | None = None,
        bank: Callable[[torch.Tensor], Bank] | None = None,
        prior: torch.Tensor | None = None,
        beside: IdentityAdapter | None = None,
        older: IdentityAdapter | None = None,
        group_means: torch.Tensor | None = None,
        others: Sequence[LossEncoder] = (),
        edits: Sequence[str] = (),
        directions: Sequence[Direction] = (),
        word_parts: Sequence[FacePart] = (),
        find_parts: Callable[[Batch, Sequence[FacePart]], torch.Tensor] | None = None,
        noise_offset: float = 0.0,
        reliability: bool = False,
        lognormal: tuple[float, float] | None = None,
        fusion: RandomFusion | None = None,
        gather: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
        **parts: Any,
    ) -> None:
        super().__init__(base, adapter, **parts)
        self.losses, self.x0_steps, self.rollout = losses, x0_steps, rollout
        self.loss_parts = learned_parts(losses).to(base.unet.device)
        self.embedder, self.decoder, self.detector = embedder, decoder, detector
        self.others = {other.embedder.name: other for other in others}
        self.bank, self.prior, self.edits, self.noise_offset = bank, prior, edits, noise_offset
        self.fusion, self.gather, self.reliability, self.lognormal = fusion, gather, reliability, lognormal
        self.group_means, self.directions = group_means, directions
        self.word_parts, self.find_parts = word_parts, find_parts
        words = 0 if adapter is None else adapter.config["num_words"]
        if word_parts and len(word_parts) != words:
            raise TrainingError(
                f"word_parts must name a part for each of the {words} pseudo-words of the adapter, "
                f"not {len(word_parts)}: {', '.join(word_parts)}."
            )
        self._older, self._beside = [older], [beside]  # in lists, so that torch does not register their weights
        self._reads = losses.reads()
        if rollout is not None and older is not None:
            raise TrainingError("The relation loss compares predictions: it cannot be used with a rollout.")
        if rollout is not None and detector is None:
            raise TrainingError("The faces of a rollout may be anywhere: a rollout needs a detector.")

    @property
    def faces(self) -> FaceReader:
        """Reads the faces of predicted latents.

        Raises:
            TrainingError: The step has no face encoder or no decoder.
        """
        if self.embedder is None or self.decoder is None:
            raise TrainingError("A loss reads generated faces: give the step an embedder and a decoder.")
        return FaceReader(embedder=self.embedder, decoder=self.decoder, detector=self.detector)

    @property
    def older(self) -> IdentityAdapter:
        """The older adapter.

        Raises:
            TrainingError: There is none.
        """
        if self._older[0] is None:
            raise TrainingError("The relation loss compares with the faces of an older adapter: give `older`.")
        return self._older[0]

    @property
    def beside(self) -> IdentityAdapter | None:
        """The frozen adapter that gives the person."""
        return self._beside[0]

    def draw_timesteps(self, count: int, random: Generators) -> torch.Tensor:
        """Draw the timesteps of a batch, (count,) integers."""
        schedule = self.base.parametrisation
        if self.lognormal is None:
            return integers(0, schedule.num_train_timesteps, count, random)
        return lognormal_timesteps(schedule.alphas_cumprod, *self.lognormal, count, random)

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """Evaluate the losses of a batch, inside `with step:`.

        Args:
            batch: On the base model's device.
            random: On the CPU, for the batch or for each sample; all random numbers of the step are drawn from it.
        """
        inputs = DenoisingInputs(self, batch, random)
        if self.beside is not None and inputs.beside is not None:  # both or neither
            self.hold(self.beside.activate([inputs.beside], len(batch)))
        inputs.compute(name for name in BEFORE_ACTIVATION if name in self._reads)
        for name in self.others:
            inputs.by(name).compute(self._reads & {"negatives", "prior_embeds", "older_embeds"})
        fusion = None if self.fusion is None else self.fusion.at(uniform(len(batch), random))
        self.hold(self.activate(batch, inputs.identity, fusion))
        inputs.compute(["model_output"])
        return self.connected(self.losses(inputs, inputs.timesteps), inputs.identity)
