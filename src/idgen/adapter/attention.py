"""The identity branch of one cross-attention layer, and the hooks that join it to the layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

from ..errors import AdapterError


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
        """Masks of all persons, (length, 1) each, for a layer with that many queries."""
        return self._by_length[length]


class Binding:
    """Joins an identity branch to an `Attention` layer by forward hooks, and takes itself off again.

    A hook on `to_q` keeps the query; a pre-hook on `to_out[0]` adds the identity's attention to what the output map
    reads. Nothing of the layer is replaced, so its processor can be anything. Without persons it does nothing.
    """

    def __init__(self, layer: Attention) -> None:
        if layer.norm_q is not None or layer.norm_k is not None:
            raise AdapterError("Layers that normalise their queries and keys are not supported.")
        self.heads = layer.heads
        self.regions: Regions | None = None
        self._persons: dict[int, list[KeysValues]] = {}
        self.scaled: dict[int, list[KeysValues]] = {}
        self._scale = 1.0
        self._text_factor: torch.Tensor | None = None
        self._query: torch.Tensor | None = None
        self._hooked: tuple[nn.Module, nn.Module] | None = None
        self._handles: list[Any] = []
        self._layer_handle = layer.register_forward_pre_hook(self._follow)
        self._follow(layer, ())

    def remove(self) -> None:
        """Take all hooks off."""
        self.clear()
        for handle in (*self._handles, self._layer_handle):
            handle.remove()

    def set(
        self,
        persons: dict[int, list[KeysValues]],
        regions: Regions | None,
        scale: float,
        text_factor: torch.Tensor | None = None,
    ) -> None:
        """Let persons act: UNet batch size → their keys and values for such a batch.

        `text_factor`, (batch,), is what the layer's own attention counts; all the same without.
        """
        self._persons, self.regions, self._text_factor = persons, regions, text_factor
        self._apply(scale)

    def clear(self) -> None:
        """Let nobody act."""
        self._persons, self.scaled, self.regions, self._text_factor, self._query = {}, {}, None, None, None

    def rescale(self, scale: float) -> None:
        """Change how strongly the persons act."""
        if scale != self._scale:
            self._apply(scale)

    def _apply(self, scale: float) -> None:
        """Fold the scale into the values: they are few, the activations are many."""
        self._scale = scale
        if scale == 0:
            self.scaled = {}
        else:
            self.scaled = {
                batch: [KeysValues(keys, values if scale == 1 else values * scale) for keys, values in persons]
                for batch, persons in self._persons.items()
            }

    def _follow(self, layer: nn.Module, _: tuple) -> None:
        """Hook the layer's maps, again when they have been replaced since (PEFT wraps them, and unwraps them)."""
        assert isinstance(layer, Attention)
        to_q, to_out = layer.to_q, layer.to_out[0]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        if self._hooked is not None and self._hooked[0] is to_q and self._hooked[1] is to_out:
            return
        for handle in self._handles:
            handle.remove()
        self._hooked = (to_q, to_out)
        self._handles = [to_q.register_forward_hook(self._keep), to_out.register_forward_pre_hook(self._add)]

    def _keep(self, _: nn.Module, __: tuple, query: torch.Tensor) -> None:
        if self.scaled:
            self._query = query

    def _add(self, _: nn.Module, args: tuple) -> tuple | None:
        query, self._query = self._query, None
        if query is None:
            return None
        hidden_states = args[0]
        persons = self.scaled.get(query.shape[0])
        if persons is None:
            raise AdapterError(
                f"The UNet was called with a batch of {query.shape[0]}; the identities were set for batches of "
                f"{sorted(self.scaled)}."
            )
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        if self._text_factor is not None:
            hidden_states = hidden_states * self._text_factor.to(hidden_states)[:, None, None]
        masks = self.regions.at(query.shape[2]) if self.regions is not None else None
        for i, (keys, values) in enumerate(persons):
            found = F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
            hidden_states = hidden_states + (found if masks is None else found * masks[i])
        return (hidden_states, *args[1:])
