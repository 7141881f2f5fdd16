"""The identity branch of one cross-attention layer, and the hooks that add its output to the layer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

from .branch import BranchHooks, KeysValues
from .hooks import remove_hooks
from .orthogonal import Ortho, orthogonal_part

if TYPE_CHECKING:
    from .conditioning import ForwardConditioning


class IdentityBranch(nn.Module):
    """Keys and values of the identity tokens for one layer; the query is the layer's own.

    Together with the layer this is decoupled cross-attention (IP-Adapter, arXiv 2308.06721, eq. 5).
    """

    scales_values: ClassVar[bool] = True

    def __init__(self, cross_attention_dim: int, inner_dim: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(cross_attention_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(cross_attention_dim, inner_dim, bias=False)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, tokens, cross_attention_dim) → keys and values, (batch, tokens, inner_dim)."""
        return self.to_k(tokens), self.to_v(tokens)


class AttentionHooks(BranchHooks):
    """Forward hooks that add identity attention to an `Attention` layer.

    A hook on `to_q` keeps the query. A pre-hook on `to_out[0]` adds the identity attention to the input of the output
    map. The layer's processor is not replaced, so it can be any.

    Args:
        layer: The layer.
        token: See `HookOwner`.
        is_first: Whether the identity attention is added before that of other adapters, so that it can be fused with
            the layer's own attention alone.

    Attributes:
        text_scale: (images,), factor on the layer's own attention, or `None`.
        ortho: How the identity attention is added; see `Ortho`. It is fused with the layer's own attention over the
            whole image, also where a person has a region.
    """

    def __init__(self, layer: Attention, token: str, is_first: bool = False) -> None:
        super().__init__(layer.heads, token)
        self._is_first = is_first
        self.text_scale: torch.Tensor | None = None
        self.ortho: Ortho | None = None
        self._query: torch.Tensor | None = None
        self._hooked: tuple[nn.Module, nn.Module] | None = None
        layer.register_forward_pre_hook(self._hook_maps)
        self._hook_maps(layer, ())

    def apply(
        self, people: Mapping[int, Sequence[KeysValues]] | None, bound: ForwardConditioning | None, path: str
    ) -> None:
        """See `BranchHooks`."""
        super().apply(people, bound, path)
        self.text_scale = None if bound is None else bound.text_scale
        self.ortho = None if bound is None else bound.ortho

    def _hook_maps(self, layer: nn.Module, _: tuple[object, ...]) -> None:
        """Hook the layer's maps, again when they have been replaced (by PEFT or a quantiser, for example)."""
        assert isinstance(layer, Attention)
        to_q, to_out = layer.to_q, layer.to_out[0]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        if self._hooked is not None and self._hooked[0] is to_q and self._hooked[1] is to_out:
            return
        for module in (*(self._hooked or ()), to_q, to_out):
            remove_hooks(module, self.token, AttentionHooks)
        self._hooked = (to_q, to_out)
        to_q.register_forward_hook(self._keep_query)
        to_out.register_forward_pre_hook(self._add_identity, prepend=self._is_first)

    def _keep_query(self, _: nn.Module, __: tuple[object, ...], query: torch.Tensor) -> None:
        if self.people is not None:
            self._query = query

    def _add_identity(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
        query, self._query = self._query, None
        if self.people is None or query is None:
            return None
        hidden_states = text = args[0]
        query = query.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        if self.text_scale is not None:
            scale = self.text_scale.repeat(len(query) // len(self.text_scale))
            hidden_states = hidden_states * scale.to(hidden_states)[:, None, None]
        batch, people = len(query), self.people[len(query)]
        shown, masks = self.shown_to(batch), self.masks(len(people), query.shape[2], batch)
        for (keys, values), mask in zip(people, masks, strict=True):
            found = F.scaled_dot_product_attention(query, keys, values, shown).transpose(1, 2).flatten(2)
            if self.ortho is not None:
                found = orthogonal_part(found, text, self.ortho, query, keys)
            hidden_states = hidden_states + (found if mask is None else found * mask)
        return (hidden_states if self.ortho is None else hidden_states.to(text.dtype), *args[1:])
