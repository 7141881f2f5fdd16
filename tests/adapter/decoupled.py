"""Decoupled cross-attention (IP-Adapter, arXiv 2308.06721, eq. 5), written out as plainly as can be."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention

from idgen import IdentityAdapter
from idgen.adapter import IdentityTokens, cross_attention_layers
from idgen.adapter.layers import module_key


class DecoupledAttention:
    """An attention processor: softmax(QKᵀ/√d)V over the text, plus scale times the same over each person's tokens."""

    def __init__(self, to_k: torch.nn.Module, to_v: torch.nn.Module, tokens: list[torch.Tensor], scale: float) -> None:
        self.to_k, self.to_v, self.tokens, self.scale = to_k, to_v, tokens, scale
        self.masks: list[torch.Tensor] | None = None
        self.image_prompt: tuple[torch.nn.Module, torch.nn.Module, float] | None = None

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, encoder_hidden_states: Any, **_: Any):
        text, images = encoder_hidden_states, []
        if isinstance(text, tuple):
            text, images = text
        query = attn.to_q(hidden_states)

        def attend(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            q, k, v = (x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, keys, values))
            weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
            return (weights @ v).transpose(1, 2).flatten(2)

        found = attend(attn.to_k(text), attn.to_v(text))  # pyright: ignore
        if self.image_prompt is not None:
            to_k, to_v, scale = self.image_prompt
            found = found + scale * attend(to_k(images[0].flatten(1, 2)), to_v(images[0].flatten(1, 2)))
        for i, tokens in enumerate(self.tokens):
            mask = 1 if self.masks is None else self.masks[i]
            found = found + self.scale * mask * attend(self.to_k(tokens), self.to_v(tokens))
        return attn.to_out[1](attn.to_out[0](found))  # pyright: ignore


def tokens_of(person: IdentityTokens, negatives: int, positives: int) -> torch.Tensor:
    """(batch, tokens, dim) with the negative half first."""
    return torch.cat([person.negative_tokens.expand(negatives, -1, -1), person.tokens.expand(positives, -1, -1)])


@contextmanager
def decoupled(unet: torch.nn.Module, adapter: IdentityAdapter, tokens: list[torch.Tensor], scale: float = 1.0):
    """Give the UNet's cross-attention layers `DecoupledAttention` and restore them."""
    layers = cross_attention_layers(unet)
    before = {path: layer.processor for path, layer in layers.items()}
    for path, layer in layers.items():
        branch = adapter.branches[module_key(path)]
        processor = DecoupledAttention(branch.to_k, branch.to_v, tokens, scale)  # pyright: ignore
        if hasattr(before[path], "to_k_ip"):
            ip: Any = before[path]
            processor.image_prompt = (ip.to_k_ip[0], ip.to_v_ip[0], ip.scale[0])
        layer.set_processor(processor)  # pyright: ignore
    try:
        yield layers
    finally:
        for path, layer in layers.items():
            layer.set_processor(before[path])  # pyright: ignore
