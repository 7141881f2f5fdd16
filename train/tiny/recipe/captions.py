"""Captions made of a picture's style and attributes, and the tokenizer that knows their words."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Whitespace
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from idgen.evaluation.prompts import PROMPT_SETS

from .attributes import COLUMN, WORDS
from .styles import STYLES

SUBJECTS = ("a face", "a person", "a portrait", "someone")
"""Ways to say that a face is shown; they mean the same."""

PROMPTS = {prompt.label: prompt.text for prompt in PROMPT_SETS["tiny"]}
"""Style -> its plainest prompt, by which the model is evaluated."""

_MORE: dict[str, tuple[str, ...]] = {
    "photo": ("a color photo of {}", "{}"),
    "pencil sketch": ("a pencil drawing of {}", "{}, pencil sketch"),
    "oil painting": ("{}, oil painting", "{}, painted in oil"),
    "sepia": ("an old sepia photo of {}", "{}, sepia"),
    "black and white": ("{}, black and white",),
    "cartoon": ("{}, cartoon", "a cartoon drawing of {}"),
    "warm light": ("{}, warm light",),
    "cold light": ("{}, cold light",),
    "pop art": ("{}, pop art", "pop art of {}"),
}
PHRASES = {style: (PROMPTS[style].replace("a face", "{}"), *more) for style, more in _MORE.items()}
"""Style -> sentences; the first one is its prompt. The order is that of the style's number."""

MORE_WORDS = "man woman boy girl child old young smiling happy sad glasses hair beard hat the with and on at is an"
"""Words that users try. They are one token each, so that an adapter or a longer training can give them a meaning."""

OF_COLOURS = ("light", "background")
"""Attributes that filters change."""


def caption(style: int, attributes: np.ndarray, dice: random.Random, subjects: Sequence[str] = SUBJECTS) -> str:
    """A sentence for a picture: always its style, and each attribute half of the time.

    A blurred photo is called blurred nine times in ten, so that a prompt without the word gives a sharp picture.

    Args:
        style: 0 for the plain photo, else from 1 in the order of `STYLES`.
        attributes: (7,), see `attributes.WORDS`. Captions of styled pictures leave out colours, which filters change.
        dice: Random numbers.
        subjects: Words for the person.
    """
    said = {
        name: WORDS[name][attributes[COLUMN[name]]]
        for name in WORDS
        if attributes[COLUMN[name]]
        and not (style and name in OF_COLOURS)
        and dice.random() < (0.9 if WORDS[name][attributes[COLUMN[name]]] == "blurred" else 0.5)
    }
    subject = _subject(said, dice, subjects)
    words = list(said.values())
    dice.shuffle(words)
    return ", ".join([dice.choice(PHRASES[(*PHRASES,)[style]]).format(subject), *words])


def _subject(said: dict[str, str], dice: random.Random, subjects: Sequence[str]) -> str:
    """A noun phrase such as "an old woman"; the attributes in it are removed from `said`."""
    sex = said.pop("sex", "")
    if subjects is not SUBJECTS:
        return dice.choice(subjects)
    noun = sex or dice.choice(subjects).split()[-1]
    if noun == "someone":
        return noun
    adjective = said.pop("age", "") if dice.random() < 0.5 else ""
    return " ".join(filter(None, ["an" if adjective == "old" else "a", adjective, noun]))


def build_tokenizer(length: int) -> CLIPTokenizer:
    """CLIP's tokenizer with one token for each word of the captions; other words fall into pieces.

    Byte pair merges are learned from the words until each is whole. The single letters, also at the end of a word,
    come first, so that any text can be encoded.
    """
    letters = sorted(ByteLevel.alphabet())
    bpe = Tokenizer(BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = Whitespace()
    bpe.train_from_iterator(
        sorted(words()),
        BpeTrainer(vocab_size=10_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False),
    )
    merges: Any = [tuple(merge) for merge in json.loads(bpe.to_str())["model"]["merges"]]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(left + right for left, right in merges)]
    vocabulary = dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=merges, model_max_length=length
    )


def words() -> set[str]:
    """Every word that the tokenizer has a token for."""
    return taught_words() | {*" ".join([*STYLES, MORE_WORDS]).split()}


def taught_words(attributes: np.ndarray | None = None) -> set[str]:
    """Every word that a caption can hold; with `attributes` (n, 7), a caption of these pictures."""
    phrases: Iterable[str] = (phrase for group in PHRASES.values() for phrase in group)
    said = [
        word
        for column, group in zip(range(len(WORDS)), WORDS.values(), strict=True)
        for value, word in enumerate(group)
        if attributes is None or (attributes[:, column] == value).any()
    ]
    return set(" ".join([*phrases, *SUBJECTS, *said, "an"]).replace("{}", "").replace(",", "").split())
