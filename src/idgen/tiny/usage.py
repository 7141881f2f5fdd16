"""How a base model is best used: `usage.json` in its folder. It is read before a model is opened."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CheckpointError
from ..files import read_json
from ..typed import arguments
from . import base_place

USAGE = "usage.json"
_WORD = re.compile(r"[^\W\d_]+")
_PLACEHOLDER = re.compile(r"<\w+>")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Settings that suit a base model, and the words that it knows.

    Attributes:
        resolution: Side of its pictures in pixels, if it draws one size only.
        guidance_scale: Guidance scale.
        num_inference_steps: Denoising steps.
        words: Words of the prompts that it was trained on; empty for a model that knows all words.
        learning_rate: Learning rate to tune it on one person; small models need a larger one.
    """

    resolution: int | None = None
    guidance_scale: float = 5.0
    num_inference_steps: int = 25
    words: tuple[str, ...] = ()
    learning_rate: float = 2e-4

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that the model does not know, each once and in lower case."""
        said = dict.fromkeys(_WORD.findall(_PLACEHOLDER.sub(" ", prompt).lower()))
        return [word for word in said if word not in self.words] if self.words else []


def usage_of(base: str, lora: str | None = None) -> Usage:
    """The usage of a base model; the defaults if it has no such file, as models on the hub.

    Args:
        base: `"tiny"`, a folder or a hub id.
        lora: A LoRA, whose folder may have such a file with steps and guidance scale (`idgen train distil`).

    Raises:
        CheckpointError: A file cannot be read.
    """
    usage = _usage(Path(base_place(base)))
    if lora is None or not (Path(lora) / USAGE).is_file():
        return usage
    few = _usage(Path(lora))
    return replace(usage, num_inference_steps=few.num_inference_steps, guidance_scale=few.guidance_scale)


def _usage(folder: Path) -> Usage:
    file = folder / USAGE
    if not file.is_file():
        return Usage()
    return Usage(**arguments(Usage, read_json(file), f"'{file}'", CheckpointError))
