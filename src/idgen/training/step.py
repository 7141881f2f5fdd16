"""What all training steps share: a frozen base model, and the parts on it that may be trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..adapter import Fusion, IdentityAdapter, IdentityNet, IdentityTokens
from ..convert import NET
from ..errors import EncoderMismatchError, TrainingError
from ..faces import draw_keypoints
from ..files import write_folder
from ..losses import Weighted
from .base import BaseModel
from .batch import Batch
from .lora import UNetLoRA

CONFIG = "config.json"


class TrainingStep(nn.Module):
    """A module of the parts alone, so that accelerate can wrap them; the base is held where torch does not look.

    What shall not be trained is frozen before, with `requires_grad_(False)`.

    Args:
        base: Frozen.
        adapter: Attached to the base's UNet; none where a LoRA is trained alone.
        lora: On the base's UNet.
        identity_net: Reads the adapter's tokens, and the landmarks of the targets.
        image_branch: Whether the UNet reads the adapter's tokens itself; without, its branches are frozen.

    Raises:
        TrainingError: There is nothing to train, or an IdentityNet without the adapter whose tokens it reads.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        lora: UNetLoRA | None = None,
        identity_net: IdentityNet | None = None,
        image_branch: bool = True,
    ) -> None:
        super().__init__()
        self.adapter, self.lora, self.identity_net, self.image_branch = adapter, lora, identity_net, image_branch
        self._base = [base]
        self._is_alone = False
        if identity_net is not None and adapter is None:
            raise TrainingError("An IdentityNet reads the tokens of an adapter, and there is none.")
        if adapter is not None and not image_branch:
            adapter.branches.requires_grad_(False)
        if not any(weight.requires_grad for weight in self.parameters()):
            raise TrainingError(
                "Nothing would be trained: give an adapter, a LoRA or an IdentityNet that is not frozen."
            )

    @property
    def base(self) -> BaseModel:
        """The frozen base model."""
        return self._base[0]

    @property
    def scale(self) -> int:
        """Pixels per latent pixel."""
        return self.base.pipeline.vae_scale_factor

    @property
    def at_rest(self) -> bool:
        """Whether a run can stop here and go on exactly: the next update uses nothing that a checkpoint lacks."""
        return True

    def person(self, batch: Batch) -> IdentityTokens | None:
        """Who is drawn; nobody where there is no adapter.

        Raises:
            EncoderMismatchError: The embeddings are of another encoder than the adapter reads.
        """
        if self.adapter is None:
            return None
        config = self.adapter.config
        if batch.encoder != config["encoder"]:
            raise EncoderMismatchError(
                f"The adapter reads embeddings of '{config['encoder']}', the batch holds those of '{batch.encoder}'."
            )
        return self.adapter.encode(as_read(batch.id_embeds, config["normalised"], config["pool_photos"]))

    @contextmanager
    def drawing(self, batch: Batch, person: IdentityTokens | None, fusion: Fusion | None = None) -> Iterator[None]:
        """Let a person act in all `predict` inside the `with`, and in their backward passes."""
        with ExitStack() as stack:
            if self.adapter is not None and person is not None and self.image_branch:
                stack.enter_context(self.adapter.activate([person], len(batch), fusion=fusion))
            if self.identity_net is not None and person is not None:
                stack.enter_context(self.identity_net.activate([person], len(batch)))
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let the base model draw alone inside the `with`, which may stand in a `drawing`."""
        with ExitStack() as stack:
            if self.adapter is not None:
                stack.enter_context(self.adapter.deactivate())
            if self.lora is not None:
                stack.enter_context(self.lora.paused())
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False

    def predict(
        self, batch: Batch, noisy: torch.Tensor, timesteps: torch.Tensor, text: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The prediction inside `drawing` or `alone`, for the rows of the batch, once or several times over."""
        times = len(noisy) // len(batch)
        time_ids = None if batch.time_ids is None else batch.time_ids.repeat(times, 1)
        if self.identity_net is None or self._is_alone:
            return self.base.predict(noisy, timesteps, text, time_ids)
        found = self.identity_net(
            noisy.to(self.identity_net.dtype),
            timesteps,
            text["encoder_hidden_states"],
            self._landmarks(batch).repeat(times, 1, 1, 1),
            added_cond_kwargs=self.base.added(text, time_ids),
            return_dict=False,
        )
        return self.base.predict(noisy, timesteps, text, time_ids, found)

    def _landmarks(self, batch: Batch) -> torch.Tensor:
        """What the IdentityNet sees, (batch, 3, height, width) in [0, 1]; black where there is no face."""
        height, width = (side * self.scale for side in batch.latents.shape[-2:])
        empty = np.zeros((height, width, 3), np.uint8)
        drawn = [
            draw_keypoints(points, (width, height)) if found else empty
            for points, found in zip(batch.landmarks.cpu().numpy(), batch.face_found.tolist(), strict=True)
        ]
        return torch.from_numpy(np.stack(drawn)).to(batch.latents.device).permute(0, 3, 1, 2).float() / 255

    @staticmethod
    def with_words(found: Weighted, person: IdentityTokens | None) -> Weighted:
        """The same losses, of which pseudo-words are a part also where no prompt holds them.

        Processes add up their gradients, and wait for all of them: nobody may have one that others lack.
        """
        words = [] if person is None else [words for words in person.words if words is not None]
        return found._replace(values=found.values + 0 * sum(part.sum() for part in words)) if words else found

    def save(self, folder: Path) -> None:
        """Write all parts: an adapter's folder, with the LoRA's file and the IdentityNet's folder in it."""
        with write_folder(folder, last=CONFIG) as new:  # without it nothing loads
            if self.lora is not None:
                self.lora.save(new)
            if self.identity_net is not None:
                self.identity_net.save_pretrained(new / NET)
            if self.adapter is not None:
                self.adapter.save_pretrained(new)

    def load(self, folder: Path) -> None:
        """Take what `save` wrote.

        Raises:
            CheckpointError: A part is missing or does not fit.
        """
        if self.lora is not None:
            self.lora.load(folder)
        if self.identity_net is not None:
            saved = IdentityNet.from_pretrained(folder / NET)
            self.identity_net.load_state_dict(saved.state_dict())
        if self.adapter is not None:
            self.adapter.load_state_dict(IdentityAdapter.from_pretrained(folder).state_dict())


def as_read(embeds: torch.Tensor, normalised: bool, pool_photos: bool) -> torch.Tensor:
    """Raw embeddings → what an adapter reads, as a pipeline makes it of an `Identity`.

    Args:
        embeds: (batch, dim) or (batch, photos, dim); zeros stay zeros.
        normalised: Whether the adapter reads embeddings of unit length.
        pool_photos: Whether it reads the mean of several photos.
    """
    if normalised:
        embeds = F.normalize(embeds, dim=-1)
    if embeds.ndim == 2 or not pool_photos:
        return embeds
    mean = embeds.mean(1)
    return F.normalize(mean, dim=-1) if normalised else mean
