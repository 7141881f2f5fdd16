"""The base class of training steps: a frozen base model, and the parts on it that may be trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from torch import nn

from ..adapter import Fusion, IdentityAdapter, IdentityNet, IdentityTokens, Restorer
from ..convert import NET
from ..data.people_options import Masks
from ..errors import CheckpointError, TrainingError
from ..faces import draw_keypoints
from ..files import write_folder
from ..losses import Weighted
from .base import BaseModel
from .batch import Batch
from .encoding import encode_with
from .faces import face_mask
from .trainable import UNetLoRA

CONFIG = "config.json"
T = TypeVar("T")


class TrainingStep(nn.Module):
    """The base of all training steps: a module of the trained parts alone, so that accelerate can wrap it.

    A step is called inside `with step:`. What its forward pass activates stays active until the `with` ends, because a
    UNet with gradient checkpointing runs its layers again in the backward pass and needs the identity there:

        with step:
            loss = step(batch, random).total
            loss.backward()

    Parts that shall not be trained are frozen beforehand, with `requires_grad_(False)`.

    Args:
        base: The frozen base model. It is not a submodule of the step.
        adapter: Attached to the base's UNet; None to train a LoRA alone.
        lora: LoRA on the base's UNet.
        identity_net: Reads the adapter's tokens and the landmarks of the targets.
        restorer: Reads the batch's `condition` and the text.
        image_branch: Whether the UNet reads the adapter's tokens itself. If not, the adapter's branches are frozen.
        masks: Where each of several people conditions a picture; see `PeopleOptions`.
        face_only: Whether the person of a picture conditions only the box around the face.

    Attributes:
        loss_parts: Parts of the losses that are trained with the adapter. A checkpoint contains them, the trained
            adapter does not.

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
        masks: Masks = "boxes",
        restorer: Restorer | None = None,
        face_only: bool = False,
    ) -> None:
        super().__init__()
        self.loss_parts = nn.ModuleDict()
        self.adapter, self.lora, self.identity_net, self.image_branch = adapter, lora, identity_net, image_branch
        self.masks: Masks = masks
        self.face_only = face_only
        self.restorer = restorer
        self._base = [base]  # in a list, so that torch does not register its networks
        self._base_only = False
        self._held: ExitStack | None = None
        if identity_net is not None and adapter is None:
            raise TrainingError("An IdentityNet reads the tokens of an adapter, and there is no adapter.")
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
        """Whether a run can stop here and be resumed exactly: a checkpoint holds all that the next update needs."""
        return True

    def __enter__(self) -> Self:
        self._held = ExitStack()
        return self

    def __exit__(self, *_: object) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.close()

    def hold(self, context: AbstractContextManager[T]) -> T:
        """Enter a context that lasts until the `with` of the step ends.

        Raises:
            TrainingError: The step was called outside of `with step:`.
        """
        if self._held is None:
            raise TrainingError("Call a training step inside `with step:`, and run the backward pass there.")
        return self._held.enter_context(context)

    def encode(self, batch: Batch) -> IdentityTokens | None:
        """The identity tokens of a batch; None without an adapter.

        Raises:
            EncoderMismatchError: The embeddings are of another encoder than the adapter reads.
        """
        return None if self.adapter is None else encode_with(self.adapter, batch)

    @contextmanager
    def activate(self, batch: Batch, identity: IdentityTokens | None, fusion: Fusion | None = None) -> Iterator[None]:
        """Activate identity conditioning for every `predict` inside the `with`, and for their backward passes."""
        with ExitStack() as stack:
            people = [] if identity is None else identity.by_person(batch.people)
            where = self.places(batch)
            if self.adapter is not None and people and self.image_branch:
                stack.enter_context(self.adapter.activate(people, len(batch), fusion=fusion, **where))
            if self.identity_net is not None and people:
                stack.enter_context(self.identity_net.activate(people, len(batch), **where))
            yield

    def places(self, batch: Batch) -> dict[str, Any]:
        """Where each person may appear, as arguments of `activate`."""
        if batch.people == 1:
            return {"masks": [self.person_masks(batch)[:, 0]]} if self.face_only else {}
        if self.masks == "none":
            return {"shown": batch.known}
        return {"masks": list(self.person_masks(batch, self.masks == "soft").unbind(1))}

    def person_masks(self, batch: Batch, soft: bool = False) -> torch.Tensor:
        """(batch, people, height, width), 1 in the box around the face of each person, at the size of the latents."""
        found = batch.face_found & batch.known.flatten()
        masks = face_mask(batch.landmarks / self.scale, found, *batch.latents.shape[-2:], soft=soft)
        return batch.by_picture(masks[:, 0])

    @contextmanager
    def base_only(self) -> Iterator[None]:
        """Deactivate adapter, LoRA and IdentityNet inside the `with`, which may be inside of `activate`."""
        with ExitStack() as stack:
            if self.adapter is not None:
                stack.enter_context(self.adapter.deactivate())
            if self.lora is not None:
                stack.enter_context(self.lora.paused())
            self._base_only = True
            try:
                yield
            finally:
                self._base_only = False

    def predict(
        self, batch: Batch, noisy: torch.Tensor, timesteps: torch.Tensor, text: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """The UNet's prediction, inside `activate` or `base_only`.

        Args:
            batch: Its landmarks and sizes are read.
            noisy: (n * batch, channels, height, width), the rows of the batch n times over.
            timesteps: (n * batch,).
            text: What `BaseModel.encode` returns, for as many rows.
        """
        times = len(noisy) // len(batch)
        time_ids = None if batch.time_ids is None else batch.time_ids.repeat(times, 1)
        net = self.restorer if self.identity_net is None else self.identity_net
        if net is None or self._base_only:
            return self.base.predict(noisy, timesteps, text, time_ids)
        condition = self._keypoints(batch) if self.identity_net is not None else batch.condition
        if condition is None:
            raise TrainingError("A restorer reads damaged pictures: the batch has no condition.")
        residuals = net(
            noisy.to(net.dtype),
            timesteps,
            text["encoder_hidden_states"],
            condition.repeat(times, 1, 1, 1),
            added_cond_kwargs=self.base.added(text, time_ids),
            return_dict=False,
        )
        return self.base.predict(noisy, timesteps, text, time_ids, residuals)

    def _keypoints(self, batch: Batch) -> torch.Tensor:
        """Drawings of the landmarks of all faces, (batch, 3, height, width) in [0, 1]; black where there is none."""
        height, width = (side * self.scale for side in batch.latents.shape[-2:])
        empty, faces = np.zeros((height, width, 3), np.uint8), (batch.landmarks, batch.face_found)
        drawn = [
            draw_keypoints(points[found], (width, height)) if found.any() else empty
            for points, found in zip(*(batch.by_picture(each).cpu().numpy() for each in faces), strict=True)
        ]
        return torch.from_numpy(np.stack(drawn)).to(batch.latents.device).permute(0, 3, 1, 2).float() / 255

    def connected(self, found: Weighted, identity: IdentityTokens | None) -> Weighted:
        """The same losses with the pseudo-words and the learned parts of the losses in their graph, also where no
        prompt contains the words, and where a loss counts for no sample.

        Processes wait for each other's gradient of every weight: a weight must not have one in some of them only.
        """
        words = [] if identity is None else [words for words in identity.words if words is not None]
        parts = [*words, *self.loss_parts.parameters()]
        return found._replace(values=found.values + 0 * sum(part.sum() for part in parts)) if parts else found

    def save(self, folder: Path) -> None:
        """Write all parts: the adapter's folder, with the LoRA's file and the IdentityNet's folder in it."""
        with write_folder(folder, last=CONFIG) as new:  # without the configuration nothing loads
            if self.lora is not None:
                self.lora.save(new)
            if self.identity_net is not None:
                self.identity_net.save_pretrained(new / NET)
            if self.adapter is not None:
                self.adapter.save_pretrained(new)
            if self.restorer is not None:
                self.restorer.save_pretrained(new)

    def load(self, folder: Path) -> None:
        """Load what `save` wrote.

        Raises:
            CheckpointError: A part is missing or does not fit.
        """
        if self.lora is not None:
            self.lora.load(folder)
        if self.identity_net is None and (folder / NET).is_dir():  # earlier versions trained it without being asked
            raise CheckpointError(
                f"'{folder}' has an IdentityNet, and this run does not train one. "
                f"Start a new run: --id_adapter {folder} --identity_net"
            )
        if self.identity_net is not None:
            saved = IdentityNet.from_pretrained(folder / NET)
            self.identity_net.load_state_dict(saved.state_dict())
        if self.adapter is not None:
            adapter = IdentityAdapter.from_pretrained(folder)
            if adapter.config["adaptive_words"] != self.adapter.config["adaptive_words"]:  # of an earlier version
                raise CheckpointError(
                    f"The pseudo-words in '{folder}' are not held to the size of the text encoder's own, as those of "
                    f"new runs are. Start a new run from its weights: --id_adapter {folder}"
                )
            self.adapter.load_state_dict(adapter.state_dict())
        if self.restorer is not None:
            self.restorer.load_state_dict(Restorer.from_pretrained(folder).state_dict())
