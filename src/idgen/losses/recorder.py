"""Recordings of a UNet's cross-attention layers, by hooks that do not change the result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from ..adapter import cross_attention_layers
from ..adapter.attention import AttentionHooks
from ..adapter.hooks import owner_of
from ..adapter.layers import self_attention_path
from ..errors import LossError
from .parametrisation import at_least_float32


@dataclass(frozen=True, eq=False)
class LayerRecord:
    """One cross-attention layer in one forward, with its graph.

    Attributes:
        query: (batch, positions, inner_dim), of the picture.
        key: (batch, tokens, inner_dim), of the text.
        text_output: (batch, positions, inner_dim), attention output for the text, before the output projection and
            before an identity adapter adds to it.
        output: The same after the adapter has added to it.
        heads: Number of attention heads.
        identity_keys: Keys of the identity branch, (batch, heads, tokens, head_dim) for each person; one tensor with
            the tokens of all people in a row if they have no masks. Empty without an identity, and with a sequential
            adapter.
        before: (batch, positions, inner_dim), output of the block's self-attention.
        after: The same after a sequential adapter has added to it.
    """

    query: torch.Tensor
    key: torch.Tensor
    text_output: torch.Tensor
    output: torch.Tensor
    heads: int
    identity_keys: list[torch.Tensor] = field(default_factory=list)
    before: torch.Tensor | None = None
    after: torch.Tensor | None = None

    @property
    def increment(self) -> torch.Tensor:
        """(batch, positions, inner_dim), what the identity adapter added, or with `Fusion` changed."""
        if self.after is not None and self.before is not None and self.after is not self.before:
            return self.after - self.before
        return self.output - self.text_output

    def attention(self) -> torch.Tensor:
        """`softmax(Q Kᵀ/√d)` over the text's tokens, mean over the heads: (batch, positions, tokens)."""
        query, key = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.query, self.key))
        return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1).mean(1)

    def identity_attention(self, people: int) -> torch.Tensor:
        """Attention of each person's tokens to the picture, (batch, people, tokens, positions).

        `softmax(K Qᵀ/√d)` over the positions, mean over the heads: MOSAIC's map from reference to target (arXiv
        2509.01977), which sums to one for each token. A softmax over the tokens, as the branch computes it, sums to
        one at every position, wherever a person is.

        Raises:
            LossError: The keys are not those of so many people.
        """
        keys = at_least_float32(torch.cat(self.identity_keys, 2)) if self.identity_keys else None
        if keys is None or keys.shape[2] % people:
            found = 0 if keys is None else keys.shape[2]
            raise LossError(
                f"The identity branch of a layer has {found} tokens, which are not those of {people} people. A "
                "sequential adapter has no attention to the identity's tokens alone."
            )
        query = at_least_float32(self.query).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        maps = (keys @ query.mT / query.shape[-1] ** 0.5).softmax(-1).mean(1)
        return maps.unflatten(1, (people, -1))


Recording = dict[str, LayerRecord]
"""Path of each layer → its record."""


@dataclass(eq=False)
class AttentionRecorder:
    """Records a UNet's cross-attention layers inside the `with`.

    Enter it after attaching adapters and adding LoRAs. It only keeps tensors that the layers compute anyway, so it
    works with gradient checkpointing (the non-reentrant kind, diffusers' default).

    Attributes:
        unet: A UNet of SD or SDXL.
        block: Only layers whose path starts with this, for example `"up_blocks.1"`; all by default.

    Raises:
        LossError: No layer's path starts with `block`.

    Example:
        >>> with AttentionRecorder(unet) as recorder:
        ...     unet(noisy_latents, timesteps, encoder_hidden_states=text)
        ...     with_identity = recorder.take()
    """

    unet: nn.Module
    block: str = ""
    _seen: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict), init=False)
    _handles: list[Any] = field(default_factory=list, init=False)

    def __enter__(self) -> Self:
        self._layers = {
            path: layer
            for path, layer in cross_attention_layers(self.unet).items()
            if f"{path}.".startswith(f"{self.block}." if self.block else "")
        }
        if not self._layers:
            raise LossError(f"There is no cross-attention layer in '{self.block}'.")
        for path, layer in self._layers.items():
            to_q, to_k, to_out = (layer.get_submodule(name) for name in ("to_q", "to_k", "to_out.0"))
            attn1 = self.unet.get_submodule(self_attention_path(path))
            self._handles += [
                to_q.register_forward_hook(self._keep_output(path, "query")),
                to_k.register_forward_hook(self._keep_output(path, "key")),
                # the first pre-hook sees the input before an adapter adds to it, the forward hook after all pre-hooks
                to_out.register_forward_pre_hook(self._keep_input(path, "text_output"), prepend=True),
                to_out.register_forward_pre_hook(self._keep_identity(path), prepend=True),
                to_out.register_forward_hook(self._keep_input(path, "output")),
                # likewise before and after a sequential adapter, which adds to the output of self-attention
                attn1.register_forward_hook(self._keep_output(path, "before"), prepend=True),
                attn1.register_forward_hook(self._keep_output(path, "after")),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._seen.clear()

    def take(self) -> Recording:
        """Return the recording of the last forward pass, and clear the recorder.

        Raises:
            LossError: A layer was not called, or its query, key or output projection was fused or replaced after
                entering.
        """
        wanted = {"query", "key", "text_output", "output", "identity_keys", "before", "after"}
        lost = [path for path in self._layers if set(self._seen[path]) != wanted]
        if lost:
            raise LossError(
                f"{len(lost)} of {len(self._layers)} layers were not recorded, for example '{lost[0]}'. Call the UNet "
                "first, and enter the recorder after adding LoRAs; fused projections cannot be recorded."
            )
        recording = {path: LayerRecord(**self._seen[path], heads=at.heads) for path, at in self._layers.items()}
        self._seen.clear()
        return recording

    def _keep_output(self, path: str, name: str) -> Callable[..., None]:
        def keep(_: nn.Module, __: tuple, output: torch.Tensor) -> None:
            self._seen[path][name] = output

        return keep

    def _keep_input(self, path: str, name: str) -> Callable[..., None]:
        def keep(_: nn.Module, args: tuple, *__: torch.Tensor) -> None:
            self._seen[path][name] = args[0]

        return keep

    def _keep_identity(self, path: str) -> Callable[..., None]:
        """Keep the keys that an adapter's hooks are about to read; those of the first adapter of several."""

        def keep(to_out: nn.Module, args: tuple) -> None:
            hooks = (owner_of(hook) for hook in to_out._forward_pre_hooks.values())
            active = [each.people for each in hooks if isinstance(each, AttentionHooks) and each.people is not None]
            people = active[0].get(len(args[0]), ()) if active else ()
            self._seen[path]["identity_keys"] = [each.keys for each in people]

        return keep


def masks_at(masks: torch.Tensor, positions: int) -> torch.Tensor:
    """Masks at the resolution of a layer.

    Args:
        masks: (batch, n, height, width) in [0, 1], at the resolution of the UNet's latent.
        positions: Number of the layer's queries.

    Returns:
        (batch, n, positions).

    Raises:
        LossError: No level of a UNet with such a latent has this number of positions.
    """
    size = level_size(masks.shape[-2], masks.shape[-1], positions)
    return F.interpolate(masks, size, mode="area").flatten(2)


def level_size(height: int, width: int, positions: int) -> tuple[int, int]:
    """Height and width of the level of a UNet with this many positions, given those of its latent.

    Raises:
        LossError: There is no such level.
    """
    size = height, width
    while size[0] * size[1] > positions:
        size = -(-size[0] // 2), -(-size[1] // 2)  # a stride of two rounds up
    if size[0] * size[1] != positions:
        raise LossError(
            f"Masks of {height} × {width} do not match a layer of {positions} positions; give them at the resolution "
            "of the latent."
        )
    return size
