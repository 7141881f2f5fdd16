"""`ValidationConfig`: pictures that a run draws and measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from ..inputs import EncoderSpec


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Pictures of people from the validation split, drawn and measured at every checkpoint.

    Attributes:
        validation_people: Number of people of the validation split to draw; 0 for no validation.
        validation_prompts: Prompts to draw each person with. They may hold `<id>` if the adapter has pseudo-words.
        eval_encoder: Another face encoder for validation, never used in training; docs/encoders.md describes them. The
            run stops when its similarity falls while that of the training's encoder rises.
    """

    validation_people: int = 4
    validation_prompts: tuple[str, ...] = ("a photo of a person", "an oil painting of a person")
    eval_encoder: Annotated[EncoderSpec | None, tyro.conf.arg(aliases=["--judge"])] = None
