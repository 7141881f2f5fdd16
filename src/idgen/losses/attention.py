"""Losses that restrict the identity's attention to the face."""

from __future__ import annotations

import torch

from ..errors import LossError
from .parametrisation import at_least_float32
from .recorder import Recording, masks_at


def localisation_loss(with_id: Recording, token_positions: torch.Tensor, token_masks: torch.Tensor) -> torch.Tensor:
    """Tokens for the face attend to its region: `1/N Σⱼ (mean Pⱼ[1 − mⱼ] − mean Pⱼ[mⱼ])`.

    `L_facial` of ConsistentID (arXiv 2404.16771, eq. 1), where `Pⱼ` is the attention map of token j and `mⱼ` its
    region. As in the authors' code, each map is divided by its maximum. The authors sum over the layers; here the mean
    is taken.

    The tokens are words of the prompt: pseudo-words of the identity, or words for parts of the face. The loss has no
    effect on a separate branch that attends to identity tokens only: its maps sum to one at every position, so with
    one mask for all tokens the sum is always zero. Use `in_box_loss` or `increment_loss` for such a branch.

    Args:
        with_id: Cross-attention layers.
        token_positions: (batch, n), positions of the words in the prompt.
        token_masks: (batch, n, height, width) in [0, 1], the region of each word, at the resolution of the latent. A
            word with an empty mask is left out: that part of the face is not visible.

    Returns:
        (batch,), −1 to 1; 0 if all masks are empty.

    Raises:
        LossError: The numbers of masks and words differ.
    """
    if token_masks.shape[:2] != token_positions.shape:
        raise LossError(
            f"{tuple(token_positions.shape)} words need one mask each, not {tuple(token_masks.shape[:2])}."
        )
    counts = token_masks.flatten(2).sum(-1) > 0
    losses = []
    for layer in with_id.values():
        maps = at_least_float32(layer.attention()).mT
        maps = maps.gather(1, token_positions[..., None].expand(-1, -1, maps.shape[-1]))
        maps = maps / maps.amax(-1, keepdim=True)
        inside = masks_at(token_masks.to(maps.dtype), maps.shape[-1])
        gaps = _masked_mean(maps, 1 - inside) - _masked_mean(maps, inside)
        losses.append((gaps * counts).sum(1) / counts.sum(1).clamp(min=1))
    return torch.stack(losses).mean(0)


def increment_loss(with_id: Recording, face_mask: torch.Tensor) -> torch.Tensor:
    """The adapter adds to the features on the face only: `mean((1 − M) · Δh)²` over positions and layers.

    FACT (FaceChain, arXiv 2410.12312) regularises the increment Δh, but its formula is not published; this one is our
    reading. Δh is taken before the layer's output projection, which acts on each position separately. With
    `RandomFusion` the reweighted text is part of Δh too; do not combine the two.

    Args:
        with_id: Cross-attention layers.
        face_mask: (batch, 1, height, width) in [0, 1], at the resolution of the latent.

    Returns:
        (batch,).
    """
    losses = []
    for layer in with_id.values():
        increment = at_least_float32(layer.increment)
        outside = 1 - masks_at(face_mask.to(increment.dtype), increment.shape[1])[:, 0, :, None]
        losses.append((outside * increment).square().flatten(1).mean(1))
    return torch.stack(losses).mean(0)


def word_regulariser(pseudo_words: torch.Tensor) -> torch.Tensor:
    """`mean |S*|` (PhotoVerse, arXiv 2309.05793, `L_Treg`; weight 0.01): keeps pseudo-words near the origin.

    Args:
        pseudo_words: (batch, words, dim), pseudo-words of the identity.

    Returns:
        (batch,).
    """
    return at_least_float32(pseudo_words).abs().flatten(1).mean(1)


def value_regulariser(identity_values: list[torch.Tensor]) -> torch.Tensor:
    """`mean |V|` over the layers (PhotoVerse, arXiv 2309.05793, `L_Sreg`; weight 0.001): keeps the identity sparse.

    Args:
        identity_values: (batch, tokens, inner_dim) for each layer.

    Returns:
        (batch,).

    Raises:
        LossError: The list is empty.
    """
    if not identity_values:
        raise LossError("identity_values must hold at least one layer.")
    return torch.stack([word_regulariser(values) for values in identity_values]).mean(0)


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Weighted mean along the last axis; 0 where all weights are zero."""
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=torch.finfo(mask.dtype).tiny)
