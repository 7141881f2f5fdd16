"""The gated layer of one transformer block, and the hooks that apply it between self-attention and cross-attention.

FaceChain-FACT (arXiv 2410.12312), whose layer is that of GLIGEN (arXiv 2301.07093, eq. 9 and 10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from diffusers.models.attention import GatedSelfAttentionDense
from torch import nn

from ..errors import AdapterError
from .branch import BranchHooks, KeysValues

if TYPE_CHECKING:
    from .conditioning import ForwardConditioning


class GatedBranch(GatedSelfAttentionDense):
    """Self-attention over the picture and the identity tokens, then a feed-forward layer, each behind a gate.

    With `h` the features after self-attention and `f` the tokens, it adds

        a = s · tanh(α₁) · SelfAttention(LN[h; W f])[positions of h]
        d = s · tanh(α₂) · FeedForward(LN(h + a))

    to `h`. Both gates α start at zero, so a new layer adds exactly nothing. Names and shapes are FACT's.
    """

    scales_values: ClassVar[bool] = False
    alpha_attn: nn.Parameter
    alpha_dense: nn.Parameter

    def __init__(self, cross_attention_dim: int, inner_dim: int) -> None:
        super().__init__(inner_dim, cross_attention_dim, n_heads=1, d_head=inner_dim)  # the UNet's layer knows heads

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # pyright: ignore
        """(batch, tokens, cross_attention_dim) → their keys and values in the self-attention, (batch, tokens, dim).

        They do not depend on the picture, because the layer norm acts on each token alone.
        """
        attention, tokens = cast(Any, self.attn), self.norm1(self.linear(tokens))
        return attention.to_k(tokens), attention.to_v(tokens)

    def increments(
        self,
        hidden_states: torch.Tensor,
        people: Sequence[KeysValues],
        heads: int,
        scale: float,
        shown: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """What the layer adds to the features for each person.

        Args:
            hidden_states: (batch, positions, dim), features after self-attention.
            people: Keys and values of each person.
            heads: Attention heads.
            scale: s.
            shown: (batch, 1, 1, tokens), which tokens are read; `None` for all.
        """
        attention, normed = cast(Any, self.attn), self.norm1(hidden_states)
        query, key, value = (
            layer(normed).unflatten(-1, (heads, -1)).transpose(1, 2)
            for layer in (attention.to_q, attention.to_k, attention.to_v)
        )
        if shown is not None:
            shown = F.pad(shown, (key.shape[2], 0), value=True)
        found = []
        for keys, values in people:
            both = torch.cat([key, keys], 2), torch.cat([value, values], 2)
            attended = F.scaled_dot_product_attention(query, *both, shown).transpose(1, 2).flatten(2)
            attended = scale * self.alpha_attn.tanh() * attention.to_out[0](attended)
            dense = scale * self.alpha_dense.tanh() * self.ff(self.norm2(hidden_states + attended))
            found.append(attended + dense)
        return found


class GatedHooks(BranchHooks):
    """Forward hooks that add a `GatedBranch` to the features between self-attention and cross-attention.

    A pre-hook on `norm1` keeps the input of the block. A hook on `attn1` adds the increment to its output, which the
    block then adds to its input. The block's code is not replaced.

    Args:
        block: The transformer block.
        branch: Its gated layer.
        heads: Attention heads of the block.
        token: See `HookOwner`.

    Attributes:
        scale: Strength of the layer.
    """

    def __init__(self, block: nn.Module, branch: GatedBranch, heads: int, token: str) -> None:
        super().__init__(heads, token)
        self._branch = branch
        self.scale = 0.0
        self._input: torch.Tensor | None = None
        block.get_submodule("norm1").register_forward_pre_hook(self._keep_input)
        block.get_submodule("attn1").register_forward_hook(self._add_increment)

    def apply(
        self, people: Mapping[int, Sequence[KeysValues]] | None, bound: ForwardConditioning | None, path: str
    ) -> None:
        """See `BranchHooks`."""
        super().apply(people, bound, path)
        self.scale = 0.0 if bound is None else bound.scale[path]

    def _keep_input(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if self.people is not None:
            self._input = args[0]

    def _add_increment(self, _: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
        before, self._input = self._input, None
        if self.people is None or before is None:
            return None
        if before.shape != output.shape:
            raise AdapterError(
                f"A self-attention layer returned {output.shape[1]} positions for {before.shape[1]}. A sequential "
                "adapter cannot be used with token merging or other changes of the UNet's resolution."
            )
        batch, people = len(output), self.people[len(output)]
        added = self._branch.increments(before + output, people, self.heads, self.scale, self.shown_to(batch))
        for increment, mask in zip(added, self.masks(len(people), output.shape[1], batch), strict=True):
            output = output + (increment if mask is None else increment * mask)
        return output
