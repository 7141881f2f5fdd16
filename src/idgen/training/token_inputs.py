"""What the losses of stage one may read of identity tokens and pseudo-words, and of the places that belong to them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch

from ..adapter import IdentityTokens
from ..errors import TrainingError
from ..faces.parts import part_masks
from ..losses import Inputs
from .batch import Batch
from .encoding import as_read, encode_beside

if TYPE_CHECKING:
    from .denoiser import IdentityDenoiser


class TokenInputs(Inputs):
    """Inputs from the tokens of the identity, and masks of faces in the targets.

    Attributes:
        latents: x0 of the targets, (batch, channels, height, width).
    """

    latents: torch.Tensor
    _step: IdentityDenoiser
    _batch: Batch

    @cached_property
    def identity(self) -> IdentityTokens | None:
        """Identity tokens of the batch; None without an adapter."""
        return self._step.encode(self._batch)

    @cached_property
    def beside(self) -> IdentityTokens | None:
        """Identity tokens of the frozen adapter beside the trained one; None if there is none."""
        return None if self._step.beside is None else encode_beside(self._step.beside, self._batch)

    @cached_property
    def token_offsets(self) -> torch.Tensor:
        """(batch, tokens, dim), the identity tokens relative to those of the mean of all people."""
        assert self.identity is not None
        mean = self._group_tokens[0]
        return self.identity.tokens - mean.repeat(self.identity.tokens.shape[1] // len(mean), 1)

    @cached_property
    def group_offsets(self) -> torch.Tensor:
        """(groups, tokens, dim), the tokens of the mean of each group relative to those of the mean of all people."""
        return self._group_tokens[1:] - self._group_tokens[0]

    @cached_property
    def _group_tokens(self) -> torch.Tensor:
        """(1 + groups, tokens, dim), constants."""
        adapter, means = self._step.adapter, self._step.group_means
        if adapter is None or means is None:
            raise TrainingError("A loss reads the tokens of groups: give the step an adapter and `group_means`.")
        with torch.no_grad():
            return adapter(as_read(means.to(self.latents), adapter.config["normalised"], pool_photos=True))

    @cached_property
    def pseudo_words(self) -> torch.Tensor:
        """(batch, n, dim), the pseudo-words of all text encoders in a row."""
        words = [] if self.identity is None else [each.flatten(1) for each in self.identity.words if each is not None]
        if not words:
            raise TrainingError("A loss reads pseudo-words, and the adapter has none: set num_words.")
        return torch.cat(words, 1)

    @cached_property
    def identity_values(self) -> list[torch.Tensor]:
        """Of each layer, (batch, tokens, inner_dim): the values of the identity's attention."""
        assert self._step.adapter is not None
        assert self.identity is not None
        return list(self._step.adapter.values(self.identity.tokens))

    @cached_property
    def token_positions(self) -> torch.Tensor:
        """(batch, words), positions of the pseudo-words in the prompts; 0 where a prompt has none."""
        return self._batch.by_picture(self._words[0]).flatten(1)

    @cached_property
    def token_masks(self) -> torch.Tensor:
        """(batch, words, height, width), the face or a part of it for each pseudo-word; empty where a prompt has none,
        or the target shows no face."""
        (places, named), step, batch = self._words, self._step, self._batch
        if not step.word_parts:
            masks = self.person_masks * batch.by_picture(named)[..., None, None]
            return masks.repeat_interleave(places.shape[1], 1)
        if step.find_parts is None:
            height, width = batch.latents.shape[-2:]
            masks = part_masks(batch.landmarks / step.scale, height, width, step.word_parts)
        else:
            masks = step.find_parts(batch, step.word_parts)
        counts = named & batch.face_found & batch.known.flatten()
        return batch.by_picture(masks * counts[:, None, None, None]).flatten(1, 2)

    @cached_property
    def face_mask(self) -> torch.Tensor:
        """(batch, 1, height, width), 1 on the targets' faces, at the resolution of the latent."""
        return self.person_masks.amax(1, keepdim=True)

    @cached_property
    def person_masks(self) -> torch.Tensor:
        """(batch, people, height, width), 1 in the box around each person's face, at the resolution of the latent."""
        return self._step.person_masks(self._batch)

    @cached_property
    def person_landmarks(self) -> torch.Tensor:
        """(batch, people, 5, 2), of the targets, in pixels of the latent."""
        return self._batch.by_picture(self._batch.landmarks) / self._step.scale

    @cached_property
    def people(self) -> torch.Tensor:
        """(batch, people), whether a person has a face in the target and conditions the picture."""
        batch = self._batch
        return batch.known & batch.by_picture(batch.face_found & batch.has_identity)

    @cached_property
    def _words(self) -> tuple[torch.Tensor, torch.Tensor]:
        assert self.identity is not None
        return self._step.base.word_places(self._batch.prompts, self.beside or self.identity, self._batch.people)
