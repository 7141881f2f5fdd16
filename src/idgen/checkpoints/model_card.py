"""Model cards: what all have, and that of an adapter with the description of its projection."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..adapter.scale import in_blocks
from ..faces.expression import EXPRESSION
from ..faces.parts_encoder import PREFIX
from ..names import SD15, SDXL

_TEXT = """\
# {title}

```python
import idgen
from diffusers import {pipeline}

pipe = {pipeline}.from_pretrained("{base}")
pipe.load_id_adapter("{place}"{named})  # the folder or repository of this file
image = pipe("{prompt}", {given}).images[0]
```

| | |
| --- | --- |
| face encoder | `{encoder}`, {kind} embeddings of length {embedding_dim} |
| projection | {projection} |
| cross-attention layers | {layers} |

The adapter reads embeddings of this face encoder only. Generate images of people only with their consent.
"""

_PERSON = """\
Identity adapter

Generates images of a person with Stable Diffusion, from one photo and without tuning."""

_EXPRESSION = """\
Expression adapter

Gives a face the expression of another photo. An identity adapter that is loaded beside it gives the person:
`id_image="photo.jpg"`."""

_PARTS = """\
Adapter of parts of a face

Draws the eyes, the nose and the mouth of a photo. An identity adapter that is loaded beside it reads the same photo
and gives the person."""

_OPENING = re.compile(r'(pipe = StableDiffusion\w*Pipeline\.from_pretrained\(")(.*?)("\))')
_LOADING = re.compile(r'((?:pipe\.load_id_adapter|Restorer\.from_pretrained)\(")([^"]*)(")')


def card_head(*tags: str) -> str:
    """The metadata that the hub reads at the beginning of a model card, with these tags beside "idgen"."""
    listed = "".join(f"- {tag}\n" for tag in ("idgen", *tags))
    return f"---\nlibrary_name: diffusers\ntags:\n{listed}---\n\n"


def opening_code(base: str) -> list[str]:
    """Lines of code for a model card that open a base model: a folder, a hub id, or "tiny"."""
    if base == "tiny":
        return ["from idgen.tiny import load_tiny_base", "", "pipe = load_tiny_base()"]
    opened = f'pipe = AutoPipelineForText2Image.from_pretrained("{base}")'
    return ["from diffusers import AutoPipelineForText2Image", "", opened]


def model_card(config: Mapping[str, Any], place: str, fuses_text: bool = False) -> str:
    """The model card of an adapter, in Markdown.

    Args:
        config: Configuration of the adapter.
        place: Folder or repository of the adapter, for the code in the card.
        fuses_text: Whether the adapter fuses the identity with a class word of the prompt.
    """
    prompt, scale = ("a photo of a man <id>", 1.0) if fuses_text else ("a portrait in the rain", 0.8)
    xl = config["cross_attention_dim"] == 2048
    fields = {
        **config,
        "pipeline": "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline",
        "base": SDXL if xl else SD15,
        "place": place,
        "prompt": prompt,
        "title": _PERSON,
        "named": "",
        "given": f'id_image="photo.jpg", id_scale={scale}',
        **_beside_a_person(config["encoder"]),
        "kind": "unit-length" if config["normalised"] else "raw",
        "layers": len(in_blocks(config["layers"], config["blocks"])),
        "projection": describe_projection(config),
    }
    return card_head("identity", "text-to-image") + _TEXT.format(**fields)


def _beside_a_person(encoder: str) -> dict[str, str]:
    """What is different in the card of an adapter of this encoder that is used beside an identity adapter."""
    if encoder == EXPRESSION:
        shown = 'expression_image="smile.jpg"'
        return {"title": _EXPRESSION, "named": ', adapter_name="expression"', "given": shown}
    if encoder.startswith(PREFIX):
        return {"title": _PARTS, "named": ', adapter_name="parts"'}
    return {}


def with_places(card: str, place: str, base: str | None = None) -> str:
    """A card whose code opens an adapter and a base model at other places.

    Args:
        card: A text of `model_card`, or the card of a restorer.
        place: Folder or repository of the adapter.
        base: A folder, a hub id, or "tiny"; None to leave it.
    """
    card = _LOADING.sub(lambda found: f"{found[1]}{place}{found[3]}", card)
    if base is None:
        return card
    if base != "tiny":
        return _OPENING.sub(lambda found: f"{found[1]}{base}{found[3]}", card)
    opened = _OPENING.sub("pipe = load_tiny_base()", card)
    return re.sub("from diffusers import Stable.*\n", "from idgen.tiny import load_tiny_base\n", opened)


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
