"""What PuLID for SDXL computes, written down from its publication and not from our code."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .arithmetic import Tensors, heads_of, linear, norm


def mapping(t: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    for slot in (0, 3):
        x = linear(t, f"{name}.{slot}", x)
        x = norm(t, f"{name}.{slot + 1}", x)
        x = torch.where(x > 0, x, 0.01 * x)
    return linear(t, f"{name}.6", x)


def tokens_v1(t: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x: (photos, inputs), y: (photos, 5, n, width) → (tokens, cross): all of the first photo, and what the embedding
    of each other photo adds."""
    cross = len(t["mapping_0.6.bias"])
    tokens = list(mapping(t, "body", x[0]).split(cross))
    for i in range(5):
        patches = mapping(t, f"mapping_patch_{i}", y[0, i, 1:])
        tokens.append(mapping(t, f"mapping_{i}", y[0, i, 0]) + patches.sum(0) / len(patches))
    for photo in x[1:]:
        tokens += mapping(t, "body", photo).split(cross)
    return torch.stack(tokens)


def tokens_v1_1(t: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same arguments → (tokens, cross), as many for one photo as for several."""
    latents = t["latents"][0]
    dim = latents.shape[1]
    faces = torch.cat([mapping(t, "id_embedding_mapping", photo).view(-1, dim) for photo in x])
    z = torch.cat([latents, faces])
    for j in range(10):
        scale = torch.cat([mapping(t, f"mapping_{j // 2}", photo[j // 2]) for photo in y])
        a, b = norm(t, f"layers.{j}.0.norm1", torch.cat([faces, scale])), norm(t, f"layers.{j}.0.norm2", z)
        both = linear(t, f"layers.{j}.0.to_kv", torch.cat([a, b]))
        key, value, query = both[:, :dim], both[:, dim:], linear(t, f"layers.{j}.0.to_q", b)
        heads = []
        for start in range(0, dim, 64):
            part = slice(start, start + 64)
            heads.append(torch.softmax(query[:, part] @ key[:, part].T / 8, -1) @ value[:, part])
        z = z + linear(t, f"layers.{j}.0.to_out", torch.cat(heads, 1))
        inner = linear(t, f"layers.{j}.1.1", norm(t, f"layers.{j}.1.0", z))
        z = z + linear(t, f"layers.{j}.1.3", F.gelu(inner))
    return z[: len(latents)] @ t["proj_out"]


def both_halves(variant: str, t: Tensors, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of nobody and of the person. Nobody is zeros through the encoder: of one photo in v1.1."""
    if variant == "pulid-v1":
        return tokens_v1(t, 0 * x, 0 * y), tokens_v1(t, x, y)
    return tokens_v1_1(t, 0 * x[:1], 0 * y[:1]), tokens_v1_1(t, x, y)


class PuLIDProcessor:
    """Attention of a layer with PuLID's fusion; tokens of nobody for the first half of a batch with guidance."""

    def __init__(
        self, to_k: torch.Tensor, to_v: torch.Tensor, halves: tuple[torch.Tensor, torch.Tensor], **settings: Any
    ) -> None:
        self.to_k, self.to_v, self.halves, self.settings = to_k, to_v, halves, settings

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any = None, **_: Any):
        query = heads_of(attn.to_q(hidden_states), attn.heads)
        text = self.attend(query, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states))
        rows, images = len(hidden_states), self.settings["images"]
        halves = [self.halves[1]] * rows if rows == images else [each for each in self.halves for _ in range(images)]
        found = [self.fused(query[i], text[i], tokens) for i, tokens in enumerate(halves)]
        return attn.to_out[1](attn.to_out[0](torch.stack(found)))

    @staticmethod
    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        key, value = (heads_of(x, query.shape[-3]) for x in (key, value))
        weights = torch.softmax(query @ key.mT / query.shape[-1] ** 0.5, -1)
        return (weights @ value).transpose(-3, -2).flatten(-2)

    def fused(self, query: torch.Tensor, text: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """One row of the batch: query (heads, positions, head_dim), text (positions, channels)."""
        zeros = torch.zeros(self.settings["num_zero"], tokens.shape[1])
        rows = torch.cat([tokens, zeros])
        key, value = rows @ self.to_k.T, rows @ self.to_v.T
        found = self.attend(query[None], key[None], value[None])[0]
        along = torch.zeros_like(text)
        for channel in range(text.shape[1]):
            power = float(text[:, channel] @ text[:, channel])
            if power:
                along[:, channel] = text[:, channel] * float(text[:, channel] @ found[:, channel]) / power
        if self.settings["ortho"] == "ortho":
            found = found - along
        elif self.settings["ortho"] == "ortho_v2":
            share = torch.softmax(query @ heads_of(key[None], len(query))[0].mT, -1)[..., :5].sum(-1).mean(0)
            found = found + (share[:, None] - 1) * along
        return text + self.settings["scale"] * found


def publish(unet: Any, layers: Tensors, halves: tuple[torch.Tensor, torch.Tensor], **settings: Any) -> None:
    """Give a stock UNet PuLID's attention, with layers numbered as its attention processors."""
    processors = dict(unet.attn_processors)
    for number, name in enumerate(processors):
        if f"{number}.id_to_k.weight" in layers:
            to_k, to_v = layers[f"{number}.id_to_k.weight"], layers[f"{number}.id_to_v.weight"]
            processors[name] = PuLIDProcessor(to_k, to_v, halves, **settings)
    unet.set_attn_processor(processors)
