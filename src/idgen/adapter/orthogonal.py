"""Orthogonal fusion of text and identity attention, with a place for attention to go (PuLID, arXiv 2404.16022)."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias, get_args

import torch

from ..errors import AdapterError

Ortho: TypeAlias = Literal["ortho", "ortho_v2"]
"""`"ortho"` removes the part of the identity attention that lies along the text attention. `"ortho_v2"` keeps as much
of it as the attention pays to the tokens of the face embedding."""

FACE_TOKENS = 5
"""The first tokens of an identity, whose share of the attention `"ortho_v2"` reads."""


class Preset(NamedTuple):
    """Settings of the fusion, as published: the kind, and the number of zero tokens."""

    ortho: Ortho
    num_zero: int


PRESETS = {"fidelity": Preset("ortho_v2", 8), "extremely style": Preset("ortho", 16)}
"""The two presets of PuLID's demo: more likeness to the person, or more influence of the prompt."""


MAX_ZERO = 1000
"""Limit of zero tokens. Published are up to 20."""


def check_fusion(ortho: Ortho | None, num_zero: int) -> None:
    """Check the settings of the fusion.

    Raises:
        AdapterError: `ortho` is not known, or `num_zero` is not an integer from 0 to `MAX_ZERO`.
    """
    if ortho is not None and ortho not in get_args(Ortho):
        raise AdapterError(f"ortho must be None or one of {', '.join(get_args(Ortho))}, got {ortho!r}.")
    if isinstance(num_zero, bool) or not isinstance(num_zero, int) or not 0 <= num_zero <= MAX_ZERO:
        raise AdapterError(f"num_zero must be an integer from 0 to {MAX_ZERO}, got {num_zero!r}.")


def preset_of(name: str) -> Preset:
    """The preset of this name.

    Raises:
        AdapterError: There is none.
    """
    if name not in PRESETS:
        raise AdapterError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}.")
    return PRESETS[name]


def orthogonal_part(
    identity: torch.Tensor, text: torch.Tensor, ortho: Ortho, query: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """The identity attention without its projection onto the text attention.

    The projection sums over positions, so each channel has one ratio. Where the text attention is zero (Stable
    Diffusion XL reads zeros without a negative prompt), the projection is zero.

    Args:
        identity: (batch, positions, channels), output of the identity attention.
        text: (batch, positions, channels), output of the layer's own attention.
        ortho: See `Ortho`.
        query: (batch, heads, positions, head_dim).
        keys: (batch, heads, tokens, head_dim), of the identity tokens.

    Returns:
        (batch, positions, channels), in float32 or the type of `identity` if that is wider.
    """
    wide = torch.promote_types(identity.dtype, torch.float32)  # sums over thousands of positions
    identity, text = identity.to(wide), text.to(wide)
    power = text.square().sum(1, keepdim=True)
    projection = text * ((text * identity).sum(1, keepdim=True) / power.masked_fill(power == 0, 1))
    if ortho == "ortho":
        return identity - projection
    return identity + (_face_share(query.to(wide), keys.to(wide)) - 1) * projection


def _face_share(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """Share of the attention on the face tokens, (batch, positions, 1): mean over heads of a softmax without 1/√d."""
    return (query @ keys.mT).softmax(-1)[..., :FACE_TOKENS].sum(-1).mean(1)[..., None]
