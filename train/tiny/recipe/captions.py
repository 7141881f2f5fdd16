"""What is known of a picture → a sentence; and the tokenizer that knows these words."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from .attributes import BACKGROUNDS, LIGHTS, POSES
from .styles import STYLES

SUBJECTS = ("a face", "a person", "a portrait", "someone")
"""Ways to say that a face is shown; they mean the same."""

PHRASES: dict[str, tuple[str, ...]] = {
    "photo": ("a photo of {}", "a color photo of {}", "{}"),
    "pencil sketch": ("a pencil sketch of {}", "a pencil drawing of {}", "{}, pencil sketch"),
    "oil painting": ("an oil painting of {}", "{}, oil painting", "{}, painted in oil"),
    "sepia": ("a sepia photo of {}", "an old sepia photo of {}", "{}, sepia"),
    "black and white": ("a black and white photo of {}", "{}, black and white"),
    "cartoon": ("a cartoon of {}", "{}, cartoon", "a cartoon drawing of {}"),
    "warm light": ("a photo of {} in warm light", "{}, warm light"),
    "cold light": ("a photo of {} in cold light", "{}, cold light"),
    "pop art": ("a pop art picture of {}", "{}, pop art", "pop art of {}"),
}
"""Style → sentences; the first is the one that benchmarks ask with. The order is that of the style's number."""

PROMPTS = {style: phrases[0].format("a face") for style, phrases in PHRASES.items()}
"""Style → its plainest prompt."""

MORE_WORDS = "man woman boy girl child old young smiling happy sad glasses hair beard hat the with and on at is"
"""Words that users try. They are one token each, so that an adapter or a longer training can give them a meaning."""


def caption(style: int, attributes: np.ndarray, dice: random.Random, subjects: Sequence[str] = SUBJECTS) -> str:
    """A sentence for a picture: always its style, and each attribute half of the time.

    Args:
        style: 0 for the plain photo, else from 1 in the order of `STYLES`.
        attributes: (pose, light, background), see `attributes`. Filters change colours, so of styled pictures
            the pose alone is said.
        dice: Chooses.
        subjects: What the face may be called.
    """
    words = dice.choice(PHRASES[(*PHRASES,)[style]]).format(dice.choice(subjects))
    pose, light, background = (int(value) for value in attributes)
    known = [POSES[pose]]
    if style == 0:
        known += [LIGHTS[light], f"{BACKGROUNDS[background]}"]
    dice.shuffle(known)
    return ", ".join([words, *(part for part in known if part and dice.random() < 0.5)])


def build_tokenizer(length: int) -> CLIPTokenizer:
    """CLIP's tokenizer with one token for each word of the captions; other words fall into pieces.

    Byte pair merges are learned from the words until each is whole. The letters alone and at the end of a word come
    first, so that any text can be said.
    """
    letters = sorted(ByteLevel.alphabet())
    bpe = Tokenizer(BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = Whitespace()
    bpe.train_from_iterator(
        sorted(words()),
        BpeTrainer(vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False),
    )
    merges = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges)]
    vocabulary = dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges, model_max_length=length
    )


def words() -> set[str]:
    """Every word a caption can hold."""
    phrases: Iterable[str] = (phrase for group in PHRASES.values() for phrase in group)
    text = " ".join([*phrases, *SUBJECTS, *POSES, *LIGHTS, *BACKGROUNDS, *STYLES, MORE_WORDS])
    return set(text.replace("{}", "").replace(",", "").split())
