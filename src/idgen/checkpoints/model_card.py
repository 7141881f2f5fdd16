"""The model card that lies beside an adapter."""

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

Draws one person in Stable Diffusion pictures, from one photo and without tuning.

```python
import idgen
from diffusers import {pipeline}

pipe = {pipeline}.from_pretrained("<base model>")
pipe.load_id_adapter("<this folder or repository>")
image = pipe("a portrait in the rain", id_image="photo.jpg", id_scale=0.8).images[0]
```

| | |
| --- | --- |
| face encoder | `{encoder}`, {kind} embeddings of length {embedding_dim} |
| projection | `{projection}`, {num_tokens} tokens of width {cross_attention_dim} |
| cross-attention layers | {layers} |

The adapter reads embeddings of this encoder only. Draw nobody who has not agreed to it.
"""


def model_card(config: Mapping[str, Any]) -> str:
    """The card of an adapter with this configuration, in Markdown."""
    pipeline = "StableDiffusionXLPipeline" if config["cross_attention_dim"] == 2048 else "StableDiffusionPipeline"
    fields = {**config, "layers": len(config["layers"]), "pipeline": pipeline}
    return _TEXT.format(kind="unit-length" if config["normalised"] else "raw", **fields)
