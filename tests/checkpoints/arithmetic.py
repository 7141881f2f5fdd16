"""What each public format computes, written down from its publication and not from our code: raw tensors in, an
attention processor for every layer of a stock UNet out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

Tensors = dict[str, torch.Tensor]


def linear(t: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, t[f"{name}.weight"], t.get(f"{name}.bias"))


def norm(t: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], t[f"{name}.weight"], t[f"{name}.bias"])


def heads_of(x: torch.Tensor, heads: int) -> torch.Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def perceiver(t: Tensors, x: torch.Tensor, latents: torch.Tensor, prefix: str = "") -> torch.Tensor:
    """x: (batch, n, in); heads are 64 wide; the scale is split evenly over queries and keys."""
    t = {name.removeprefix(prefix): tensor for name, tensor in t.items() if name.startswith(prefix)}
    x = linear(t, "proj_in", x)
    depth = sum(name.endswith(".0.to_q.weight") for name in t)
    for i in range(depth):
        a, b = norm(t, f"layers.{i}.0.norm1", x), norm(t, f"layers.{i}.0.norm2", latents)
        heads = len(t[f"layers.{i}.0.to_q.weight"]) // 64
        query = heads_of(linear(t, f"layers.{i}.0.to_q", b), heads) * 64**-0.25
        both = linear(t, f"layers.{i}.0.to_kv", torch.cat([a, b], 1))
        key, value = (heads_of(part, heads) for part in both.split(both.shape[-1] // 2, -1))
        attended = torch.softmax(query @ (key * 64**-0.25).mT, -1) @ value
        latents = latents + linear(t, f"layers.{i}.0.to_out", attended.transpose(1, 2).flatten(2))
        inner = F.gelu(linear(t, f"layers.{i}.1.1", norm(t, f"layers.{i}.1.0", latents)))
        latents = latents + linear(t, f"layers.{i}.1.3", inner)
    return norm(t, "norm_out", linear(t, "proj_out", latents))


def mlp_tokens(t: Tensors, embedding: torch.Tensor) -> torch.Tensor:
    width = len(t["norm.weight"])
    flat = linear(t, "proj.2", F.gelu(linear(t, "proj.0", embedding)))
    return norm(t, "norm", flat.reshape(len(embedding), -1, width))


def tokens_of(variant: str, t: Tensors, photos: torch.Tensor, clip: torch.Tensor | None) -> torch.Tensor:
    """Embeddings (photos, dim) as the face network gives them → (1, tokens, cross) for the positive half of guidance;
    from zeros those of the negative half."""
    zero = not photos.any()
    unit = photos if zero else photos / photos.norm(dim=-1, keepdim=True)
    mean = unit.mean(0, keepdim=True)
    direction = mean if zero else mean / mean.norm()
    if variant == "instantid":
        return perceiver(t, photos.mean(0)[None, None], t["latents"])
    if variant == "faceid":
        return mlp_tokens(t, direction)
    if variant == "faceid-portrait":
        return mlp_tokens(t, unit).flatten(0, 1)[None]
    if variant == "faceid-portrait-unnorm":
        return torch.cat([perceiver(t, photo[None, None], t["latents"]) for photo in photos], 1)
    queries = mlp_tokens(t, direction)
    found = perceiver(t, clip, queries, "perceiver_resampler.")  # pyright: ignore[reportArgumentType]
    return queries + found if variant == "faceid-plusv2" else found


class PublishedProcessor:
    """Attention as IP-Adapter and InstantID compute it, with the LoRA of the FaceID files."""

    def __init__(self, t: Tensors, number: int, tokens: torch.Tensor, scale: float, lora_scale: float) -> None:
        self.tokens, self.scale, self.lora_scale = tokens, scale, lora_scale
        self.t = {n.removeprefix(f"{number}."): w for n, w in t.items() if n.startswith(f"{number}.")}

    def lora(self, part: str, x: torch.Tensor) -> Any:
        if f"to_{part}_lora.down.weight" not in self.t:
            return 0
        return self.lora_scale * linear(self.t, f"to_{part}_lora.up", linear(self.t, f"to_{part}_lora.down", x))

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, **_: Any):
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = heads_of(attn.to_q(hidden_states) + self.lora("q", hidden_states), attn.heads)

        def attend(key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            key, value = heads_of(key, attn.heads), heads_of(value, attn.heads)
            weights = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1)
            return (weights @ value).transpose(1, 2).flatten(2)

        found = attend(attn.to_k(text) + self.lora("k", text), attn.to_v(text) + self.lora("v", text))
        if encoder_hidden_states is not None:
            tokens = self.tokens[-len(hidden_states) :]  # without guidance only the second half
            found = found + self.scale * attend(linear(self.t, "to_k_ip", tokens), linear(self.t, "to_v_ip", tokens))
        return attn.to_out[1](attn.to_out[0](found) + self.lora("out", found))


def publish(unet: Any, parts: dict[str, Tensors], tokens: torch.Tensor, scale: float, lora_scale: float = 1.0) -> None:
    """Give a stock UNet the published attention; tokens (2, n, cross), those of nobody first."""
    processors = {
        name: PublishedProcessor(parts["ip_adapter"], number, tokens, scale, lora_scale)
        for number, name in enumerate(unet.attn_processors)
    }
    unet.set_attn_processor(processors)
