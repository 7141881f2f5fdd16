"""`Drawing`: one request for images, on its way to the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from ..identity import Identity
from .batching import Job
from .generation import GenerationSettings
from .live import OnStep


@dataclass(eq=False, kw_only=True)
class Drawing(Job[list[Image.Image]]):
    """A request for images of people.

    Attributes:
        task: Task of the pipeline.
        settings: Settings of the request.
        identities: The people.
        arguments: Further arguments of the task's pipeline.
        on_step: Called after each step.
    """

    task: str
    settings: GenerationSettings
    identities: list[Identity]
    arguments: dict[str, Any]
    on_step: OnStep


def people_and_prompts(drawings: Sequence[Drawing], adapter: str) -> dict[str, Any]:
    """Arguments of a call for one drawing, which can show several people, or for several drawings of one person each.

    Args:
        drawings: What the call draws.
        adapter: Name of the adapter.
    """
    if len(drawings) == 1:
        only = drawings[0]
        return {
            "prompt": only.settings.text,
            "negative_prompt": only.settings.negative_prompt,
            "num_images_per_prompt": only.images,
            "id_embeds": {adapter: only.identities if "id_masks" in only.arguments else only.identities[0]},
        }
    each = [drawing for drawing in drawings for _ in range(drawing.images)]
    return {
        "prompt": [drawing.settings.text for drawing in each],
        "negative_prompt": [drawing.settings.negative_prompt for drawing in each],
        "id_embeds": {adapter: [drawing.identities[0] for drawing in each]},
    }
