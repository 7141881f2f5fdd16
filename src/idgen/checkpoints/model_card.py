"""The model card of an adapter, and the description of its projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEXT = """\
---
library_name: diffusers
tags:
- idgen
- identity
- text-to-image
---

# Identity adapter

Generates images of a person with Stable Diffusion, from one photo and without tuning.

```python
import idgen
from diffusers import {pipeline}

pipe = {pipeline}.from_pretrained("<base model>")
pipe.load_id_adapter("<this folder or repository>")
image = pipe("{prompt}", id_image="photo.jpg", id_scale={scale}).images[0]
```

| | |
| --- | --- |
| face encoder | `{encoder}`, {kind} embeddings of length {embedding_dim} |
| projection | {projection} |
| cross-attention layers | {layers} |

The adapter reads embeddings of this face encoder only. Generate images of people only with their consent.
"""


def model_card(config: Mapping[str, Any], fuses_text: bool = False) -> str:
    """The model card of an adapter, in Markdown.

    Args:
        config: Configuration of the adapter.
        fuses_text: Whether it fuses the identity with a class word of the prompt.
    """
    pipeline = "StableDiffusionXLPipeline" if config["cross_attention_dim"] == 2048 else "StableDiffusionPipeline"
    fields = {**config, "layers": len(config["layers"]), "projection": describe_projection(config)}
    prompt, scale = ("a photo of a man <id>", 1.0) if fuses_text else ("a portrait in the rain", 0.8)
    fields |= {"prompt": prompt, "scale": scale}
    return _TEXT.format(pipeline=pipeline, kind="unit-length" if config["normalised"] else "raw", **fields)


def describe_fusion(config: Mapping[str, Any]) -> str:
    """How the identity attention of an adapter with this configuration is added to the text attention."""
    ortho, num_zero = config.get("ortho"), config.get("num_zero", 0)
    return (ortho or "sum") + (f", {num_zero} zero tokens" if num_zero else "")


def describe_projection(config: Mapping[str, Any]) -> str:
    """The projection of an adapter with this configuration: its type, tokens and sizes."""
    sizes = {name: value for name, value in config["projection"].items() if name != "type" and value is not None}
    described = ", ".join(f"{name} {value}" for name, value in sizes.items())
    tokens = f"{config['num_tokens']} tokens of width {config['cross_attention_dim']}"
    return f"{config['projection']['type']}, {tokens}" + (f" ({described})" if described else "")
