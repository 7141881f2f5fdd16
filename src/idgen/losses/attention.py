"""Losses that keep the identity's attention on the face."""

from __future__ import annotations

import torch

from ..errors import LossError
from .parametrisation import at_least_float32
from .recorder import Recording, masks_at


def localisation_loss(with_id: Recording, token_positions: torch.Tensor, token_masks: torch.Tensor) -> torch.Tensor:
    """Tokens that speak of the face attend to its region: `1/N Σⱼ (mean Pⱼ[1 − mⱼ] − mean Pⱼ[mⱼ])`.

    `L_facial` of ConsistentID (arXiv 2404.16771, eq. 1), where `Pⱼ` is the attention map of token j and `mⱼ` its
    region. As in the authors' code each map is divided by its maximum; they sum over the layers, here it is the mean.

    The tokens are words of the prompt: pseudo-words of the identity, or words for parts of the face. It says nothing
    on a separate branch that attends to identity tokens alone: its maps sum to one at every position, so with one mask
    for all tokens the plain sum is zero whatever they do. `increment_loss` is for those.

    Args:
        with_id: Cross-attention layers.
        token_positions: (batch, n), which words of the prompt.
        token_masks: (batch, n, height, width) in [0, 1], the region of each, at the resolution of the latent. A word
            whose mask is empty does not count: that part of the face is not seen.

    Returns:
        (batch,), −1 to 1; 0 where no word counts.

    Raises:
        LossError: There are not as many masks as words.
    """
    if token_masks.shape[:2] != token_positions.shape:
        raise LossError(
            f"{tuple(token_positions.shape)} words need as many masks, not {tuple(token_masks.shape[:2])}."
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
    """What the adapter adds to the features stays on the face: `mean((1 − M) · Δh)²` over positions and layers.

    FACT (FaceChain, arXiv 2410.12312) regularises the increment so, but its formula is not published: this is the
    natural reading. `Δh` is taken before the layer's output map, which works on each position by itself. Where
    `RandomFusion` weighs the text anew, that is part of `Δh` too; do not combine the two.

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
        pseudo_words: (batch, words, dim), what the text branch makes of the identity.

    Returns:
        (batch,).
    """
    return at_least_float32(pseudo_words).abs().flatten(1).mean(1)


def value_regulariser(identity_values: list[torch.Tensor]) -> torch.Tensor:
    """`mean |V|` over the layers (PhotoVerse, arXiv 2309.05793, `L_Sreg`; weight 0.001): keeps the identity sparse.

    Args:
        identity_values: Of each layer, (batch, tokens, inner_dim).

    Returns:
        (batch,).

    Raises:
        LossError: There is no layer.
    """
    if not identity_values:
        raise LossError("The values of at least one layer are needed.")
    return torch.stack([word_regulariser(values) for values in identity_values]).mean(0)


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean along the last axis with weights; 0 where they are all zero."""
    return (values * mask).sum(-1) / mask.sum(-1).clamp(min=torch.finfo(mask.dtype).tiny)
