"""Prompt sets, by name or from a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import EvaluationError


@dataclass(frozen=True)
class Prompt:
    """A description of a picture; `{}` is the person's noun ("man", "woman", "person").

    Attributes:
        text: For the pipeline.
        label: What a `PromptClassifier` calls it.
    """

    text: str
    label: str = ""


_FASTCOMPOSER = """
a {} wearing a red hat | a {} wearing a santa hat | a {} wearing a rainbow scarf
a {} wearing a black top hat and a monocle | a {} in a chef outfit | a {} in a firefighter outfit
a {} in a police outfit | a {} wearing pink glasses | a {} wearing a yellow shirt | a {} in a purple wizard outfit
a {} in the jungle | a {} in the snow | a {} on the beach | a {} on a cobblestone street | a {} on top of pink fabric
a {} on top of a wooden floor | a {} with a city in the background | a {} with a mountain in the background
a {} with a blue house in the background | a {} on top of a purple rug in a forest
a {} riding a horse | a {} holding a glass of wine | a {} holding a piece of cake | a {} giving a lecture
a {} reading a book | a {} gardening in the backyard | a {} cooking a meal | a {} working out at the gym
a {} walking the dog | a {} baking cookies
a painting of a {} in the style of Banksy | a painting of a {} in the style of Vincent Van Gogh
a colorful graffiti painting of a {} | a watercolor painting of a {} | a Greek marble sculpture of a {}
a street art mural of a {} | a black and white photograph of a {} | a pointillism painting of a {}
a Japanese woodblock print of a {} | a street art stencil of a {}
"""

_TINY = {
    "photo": "a photo of a face",
    "pencil sketch": "a pencil sketch of a face",
    "oil painting": "an oil painting of a face",
    "sepia": "a sepia photo of a face",
    "black and white": "a black and white photo of a face",
    "cartoon": "a cartoon of a face",
    "warm light": "a photo of a face in warm light",
    "cold light": "a photo of a face in cold light",
    "pop art": "a pop art picture of a face",
}

PROMPT_SETS: dict[str, tuple[Prompt, ...]] = {
    "fastcomposer": tuple(Prompt(p.strip()) for p in _FASTCOMPOSER.strip().replace("\n", "|").split("|")),
    "pulid-portrait": (Prompt("portrait, color, cinematic, in garden, soft light, detailed face"),),
    "tiny": tuple(Prompt(text, label) for label, text in _TINY.items()),
}
"""FastComposer's 4 × 10 (arXiv 2305.10431, as ConsistentID and ID-Aligner use them), the one prompt of PuLID's face
similarity (arXiv 2404.16022), and ours for idgen-tiny. PuLID's other twenty are not here: their texts are not free of
doubt, and a set that is nearly the published one makes figures that look comparable and are not."""


def load_prompts(source: str) -> tuple[Prompt, ...]:
    """A set's name, or a text file of a prompt a line, with `label<TAB>` before it where a classifier shall judge.

    Raises:
        EvaluationError: It is neither, or the file is empty.
    """
    if source in PROMPT_SETS:
        return PROMPT_SETS[source]
    if not Path(source).is_file():
        raise EvaluationError(f"'{source}' is neither a file nor a prompt set; sets: {', '.join(PROMPT_SETS)}.")
    lines = [line.strip() for line in Path(source).read_text(encoding="utf-8").splitlines() if line.strip()]
    prompts = tuple(
        Prompt(text or label, label if text else "") for label, _, text in (li.partition("\t") for li in lines)
    )
    if not prompts:
        raise EvaluationError(f"'{source}' holds no prompt.")
    return prompts
