"""The identity branch of one cross-attention layer, and the hooks that join it to the layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

from ..errors import AdapterError
from .hooks import Owner, remove_hooks


class IdentityBranch(nn.Module):
    """Keys and values of the identity tokens for one layer; the query is the layer's own.

    Together with the layer this is decoupled cross-attention (IP-Adapter, arXiv 2308.06721, eq. 5).
    """

    def __init__(self, cross_attention_dim: int, inner_dim: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(cross_attention_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(cross_attention_dim, inner_dim, bias=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, tokens, cross_attention_dim) → keys and values, (batch, tokens, inner_dim)."""
        return self.to_k(tokens), self.to_v(tokens)


class KeysValues(NamedTuple):
    """One person's keys and values for one layer and one UNet batch, (batch, heads, tokens, head_dim)."""

    keys: torch.Tensor
    values: torch.Tensor


class Regions:
    """Where each person may appear, at the resolution of every layer.

    Args:
        masks: One (height, width) tensor a person, values in [0, 1].
    """

    def __init__(self, masks: list[torch.Tensor]) -> None:
        self.masks = masks
        self._latent: tuple[int, int] | None = None
        self._by_length: dict[int, list[torch.Tensor]] = {}

    def fit(self, height: int, width: int) -> None:
        """Resize the masks to all levels of a UNet whose sample has this height and width."""
        if (height, width) == self._latent:
            return
        self._latent = (height, width)
        self._by_length = {}
        while True:
            masks = [F.interpolate(m[None, None], (height, width), mode="area") for m in self.masks]
            self._by_length[height * width] = [m.flatten()[:, None] for m in masks]
            if height * width == 1:
                return
            height, width = -(-height // 2), -(-width // 2)  # a stride of two rounds up

    def at(self, length: int) -> list[torch.Tensor]:
        """Masks of all persons, (length, 1) each, for a layer with that many queries.

        Raises:
            AdapterError: No level of the UNet has so many: something merges or removes positions.
        """
        if length not in self._by_length:
            raise AdapterError(
                f"A layer has {length} positions, and the levels of the UNet have {sorted(self._by_length)}: id_masks "
                "cannot be used with token merging or other changes of the UNet's resolution."
            )
        return self._by_length[length]


class Binding(Owner):
    """Joins an identity branch to an `Attention` layer by forward hooks.

    A hook on `to_q` keeps the query; a pre-hook on `to_out[0]` adds the identity's attention to the input of the
    output map. Nothing of the layer is replaced, so its processor can be anything. While `persons` is `None` nothing
    changes.
    """

    def __init__(self, layer: Attention, token: str) -> None:
        super().__init__(token)
        self.heads = layer.heads
        self.persons: list[KeysValues] | None = None
        self.regions: Regions | None = None
        self.text: torch.Tensor | None = None
        self._query: torch.Tensor | None = None
        self._hooked: tuple[nn.Module, nn.Module] | None = None
        layer.register_forward_pre_hook(self._follow)
        self._follow(layer, ())

    def _follow(self, layer: nn.Module, _: tuple) -> None:
        """Hook the layer's maps, again when they have been replaced (by PEFT or a quantiser, for example)."""
        assert isinstance(layer, Attention)
        to_q, to_out = layer.to_q, layer.to_out[0]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        if self._hooked is not None and self._hooked[0] is to_q and self._hooked[1] is to_out:
            return
        for module in (*(self._hooked or ()), to_q, to_out):
            remove_hooks(module, self.token, Binding)
        self._hooked = (to_q, to_out)
        to_q.register_forward_hook(self._keep)
        to_out.register_forward_pre_hook(self._add)

    def _keep(self, _: nn.Module, __: tuple, query: torch.Tensor) -> None:
        if self.persons is not None:
            self._query = query

    def _add(self, _: nn.Module, args: tuple) -> tuple | None:
        query, self._query = self._query, None
        if self.persons is None or query is None:
            return None
        hidden_states = args[0]
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        if self.text is not None:
            hidden_states = hidden_states * self.text.to(hidden_states)[:, None, None]
        masks = self.regions.at(query.shape[2]) if self.regions is not None else None
        for i, (keys, values) in enumerate(self.persons):
            found = F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
            hidden_states = hidden_states + (found if masks is None else found * masks[i])
        return (hidden_states, *args[1:])
