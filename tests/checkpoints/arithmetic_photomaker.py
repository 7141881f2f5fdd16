"""What PhotoMaker computes, written down from its publication and not from our code: raw tensors in, text embeddings
and merged weights out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .arithmetic import Tensors, heads_of, linear, norm


def pixels_of(photo: np.ndarray, side: int) -> torch.Tensor:
    """CLIP's own preprocessing of a whole photo."""
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return processor([Image.fromarray(photo)], return_tensors="pt")["pixel_values"]


def part(t: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in t.items() if name.startswith(prefix)}


def vision(t: Tensors, pixels: torch.Tensor) -> torch.Tensor:
    """CLIP's image encoder with heads of 64: the last hidden state, (1, places, dim)."""
    x = F.conv2d(pixels, t["embeddings.patch_embedding.weight"], stride=14).flatten(2).mT
    x = torch.cat([t["embeddings.class_embedding"].expand(len(x), 1, -1), x], 1)
    x = norm(t, "pre_layrnorm", x + t["embeddings.position_embedding.weight"])
    for i in range(sum(name.endswith(".layer_norm1.weight") for name in t)):
        at = part(t, f"encoder.layers.{i}.")
        y, heads = norm(at, "layer_norm1", x), x.shape[-1] // 64
        query, key, value = (heads_of(linear(at, f"self_attn.{name}_proj", y), heads) for name in "qkv")
        attended = torch.softmax(query @ key.mT / 8, -1) @ value
        x = x + linear(at, "self_attn.out_proj", attended.transpose(1, 2).flatten(2))
        y = linear(at, "mlp.fc1", norm(at, "layer_norm2", x))
        x = x + linear(at, "mlp.fc2", y * torch.sigmoid(1.702 * y))
    return x


def tokens_of(t: Tensors, photos: Sequence[np.ndarray], embeddings: torch.Tensor, side: int) -> torch.Tensor:
    """The tokens of all photos of a person, (photos · K, cross)."""
    found = []
    for photo, embedding in zip(photos, embeddings, strict=True):
        hidden = vision(part(t, "vision_model."), pixels_of(photo, side))
        if "qformer_perceiver.token_norm.weight" in t:
            found.append(qformer(part(t, "qformer_perceiver."), embedding, hidden)[0])
        else:
            c = norm(t, "vision_model.post_layernorm", hidden[:, 0])
            found.append(torch.cat([linear(t, "visual_projection", c), linear(t, "visual_projection_2", c)], -1))
    return torch.cat(found)


def qformer(t: Tensors, embedding: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """v2: two tokens of the embedding, plus what a resampler with heads of 128 finds."""
    flat = linear(t, "token_proj.2", F.gelu(linear(t, "token_proj.0", embedding)))
    first = norm(t, "token_norm", flat.reshape(1, 2, -1))
    r, latents = part(t, "perceiver_resampler."), first
    x = linear(r, "proj_in", hidden)
    for i in range(sum(name.endswith(".0.to_q.weight") for name in r)):
        a, b = norm(r, f"layers.{i}.0.norm1", x), norm(r, f"layers.{i}.0.norm2", latents)
        heads = b.shape[-1] // 128
        both = linear(r, f"layers.{i}.0.to_kv", torch.cat([a, b], 1))
        key, value = (heads_of(y, heads) for y in both.split(both.shape[-1] // 2, -1))
        weights = torch.softmax(heads_of(linear(r, f"layers.{i}.0.to_q", b), heads) @ key.mT / 128**0.5, -1)
        latents = latents + linear(r, f"layers.{i}.0.to_out", (weights @ value).transpose(1, 2).flatten(2))
        inner = F.gelu(linear(r, f"layers.{i}.1.1", norm(r, f"layers.{i}.1.0", latents)))
        latents = latents + linear(r, f"layers.{i}.1.3", inner)
    return first + norm(r, "norm_out", linear(r, "proj_out", latents))


def fuse(t: Tensors, words: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    def mlp(name: str, x: torch.Tensor) -> torch.Tensor:
        return linear(t, f"{name}.fc2", F.gelu(linear(t, f"{name}.fc1", norm(t, f"{name}.layernorm", x))))

    a = mlp("mlp1", torch.cat([words, tokens], -1)) + words
    return norm(t, "layer_norm", a + mlp("mlp2", a))


def encode_text(
    pipe: Any, before: str, behind: str, repeats: int, layer: int = -2
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Token ids by hand, with the last token before the trigger repeated → (1, 77, cross), pooled, its place."""
    states, pooled, place = [], None, 0
    for tokenizer, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2)):
        first, rest = (tokenizer(text, add_special_tokens=False).input_ids for text in (before, behind))
        ids = [tokenizer.bos_token_id, *first[:-1], *(first[-1:] * repeats), *rest]
        ids = [*ids[:76], tokenizer.eos_token_id]
        ids += [tokenizer.pad_token_id] * (77 - len(ids))
        with torch.no_grad():
            output = encoder(torch.tensor([ids]), output_hidden_states=True)
        states.append(output.hidden_states[layer])
        pooled, place = output[0], len(first)
    assert pooled is not None
    return torch.cat(states, -1), pooled, place


def embeds_of(
    pipe: Any, t: Tensors, before: str, behind: str, tokens: torch.Tensor, layer: int = -2
) -> tuple[torch.Tensor, torch.Tensor]:
    """Text embeddings with the tokens in the places of the class word, and the pooled embedding."""
    text, pooled, place = encode_text(pipe, before, behind, len(tokens), layer)
    text = text.clone()
    text[0, place : place + len(tokens)] = fuse(part(t, "fuse_module."), text[0, place : place + len(tokens)], tokens)
    return text, pooled


def merge_lora(unet: Any, lora: Tensors) -> None:
    """W + up · down, for every attention layer."""
    for name in lora:
        if name.endswith("_lora.down.weight"):
            path, _, which = name.removeprefix("unet.").removesuffix("_lora.down.weight").partition(".processor.to_")
            layer = unet.get_submodule(path)
            weight = (layer.to_out[0] if which == "out" else getattr(layer, f"to_{which}")).weight
            weight.data += lora[name.replace(".down.", ".up.")] @ lora[name]
