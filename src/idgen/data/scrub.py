"""Removes people's data from captions: names, e-mail addresses, telephone numbers and dates.

Captions of web data hold such data, and models repeat them ("Life of PII"). spaCy finds names, Google's `phonenumbers`
finds telephone numbers, and patterns find the rest. Only counts are kept of what was removed.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import DataError, MissingDependencyError

SOMEBODY = "a person"
"""Replacements of names, with which a caption remains a sentence."""

REGIONS = ("US", "GB", "IN", "AU", "DE", "FR", "ES", "IT", "BR")
"""Countries whose numbers are found without a country code; with one, those of all countries are."""

SHORTEST = 7
"""Digits of the shortest telephone number that is looked for."""

_EMAIL = re.compile(r"[\w.%+-]+@[\w-]+(?:\.[\w-]+)+")
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)\.?"
)
_YEAR = r"(?:1[89]|20)\d\d"
_DATE = (
    rf"(?:\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH},?\s+{_YEAR}|{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+{_YEAR}"
    rf"|\d{{1,2}}[-./]\d{{1,2}}[-./](?:{_YEAR}|\d\d)|{_YEAR}[-./]\d{{1,2}}[-./]\d{{1,2}})"
)
_BORN = r"(?:date\s+of\s+birth|d\.?o\.?b\.?|born|b\.)[:,]?\s*(?:on|in)?\s*"
_DATES = re.compile(rf"\b(?:{_BORN}(?:{_DATE}|{_YEAR})|{_DATE})(?!\d)", re.IGNORECASE)
_GAPS = ((re.compile(r"\(\s*\)|\[\s*\]"), ""), (re.compile(r"\s+"), " "), (re.compile(r"\s+([,.;:!?)])"), r"\1"))


@dataclass(frozen=True)
class Scrubber:
    """Removes people's data from captions.

    Attributes:
        model: Name or folder of a spaCy pipeline that recognises people, such as "en_core_web_sm".
    """

    model: str = "en_core_web_sm"

    def __call__(self, caption: str, label: str | None = None) -> tuple[str, Counter[str]]:
        """Remove people's data from a caption.

        Args:
            caption: The text.
            label: Name of the person in the photo, which is removed however it is recognised otherwise.

        Returns:
            The text without them, and how many were removed of each kind: "name", "email", "phone", "date".

        Raises:
            MissingDependencyError: `idgen-diffusers[scrub]` or the spaCy pipeline is not installed.
            DataError: The spaCy pipeline finds no names.
        """
        recognise = _recogniser(self.model)
        removed: Counter[str] = Counter()
        caption, removed["email"] = _EMAIL.subn(" ", caption)
        caption, removed["phone"] = _without_phones(caption)
        caption, removed["date"] = _DATES.subn(" ", caption)
        for part in _spellings(label):
            caption, count = part.subn(SOMEBODY, caption)
            removed["name"] += count
        people = [(entity.start_char, entity.end_char) for entity in recognise(caption).ents if _is_person(entity)]
        caption = _replaced(caption, people, SOMEBODY)
        removed["name"] += len(people)
        for gap, replacement in _GAPS:
            caption = gap.sub(replacement, caption)
        return caption.strip(" ,;:-"), +removed

    def check(self) -> None:
        """Raise the errors of a call."""
        _recogniser(self.model)


def _spellings(label: str | None) -> list[re.Pattern[str]]:
    """Patterns of a person's whole name, in any case, and of its parts, as they are written or with a capital.

    Parts with digits and single letters are no names.
    """
    parts = [re.escape(part) for part in re.findall(r"[^\W_]+", label or "")]
    if not any(letter.isalpha() for letter in label or ""):
        return []
    patterns = [re.compile(r"\b" + r"[\W_]+".join(parts) + r"\b", re.IGNORECASE)]
    names = [part for part in parts if len(part) > 1 and part.isalpha()]
    if names:
        forms = sorted({form for name in names for form in (name, name.capitalize(), name.upper())})
        patterns.append(re.compile(rf"\b(?:{'|'.join(forms)})\b"))
    return patterns


def _is_person(entity: Any) -> bool:
    return entity.label_ in ("PERSON", "PER") and entity.text not in (SOMEBODY, "person")


def _without_phones(caption: str) -> tuple[str, int]:
    if sum(letter.isdigit() for letter in caption) < SHORTEST:
        return caption, 0
    import phonenumbers

    spans = set()
    for region in REGIONS:
        for match in phonenumbers.PhoneNumberMatcher(caption, region, leniency=phonenumbers.Leniency.VALID):
            spans.add((match.start, match.end))
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):  # several countries may read different parts of one number
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return _replaced(caption, merged, " "), len(merged)


def _replaced(text: str, spans: list[tuple[int, int]], replacement: str) -> str:
    for start, end in reversed(spans):
        text = text[:start] + replacement + text[end:]
    return text


@lru_cache(2)
def _recogniser(model: str) -> Any:
    """The spaCy pipeline, without the parts that recognising people does not need."""
    try:
        import phonenumbers  # noqa: F401
        import spacy
    except ImportError as error:
        raise MissingDependencyError(f"Scrubbing needs pip install 'idgen-diffusers[scrub]' ({error}).") from error
    try:
        nlp = spacy.load(model)
    except (OSError, ValueError) as error:
        raise MissingDependencyError(
            f"The spaCy pipeline '{model}' cannot be opened: python -m spacy download {model} installs one of spaCy's."
        ) from error
    if not {"ner", "entity_ruler"} & set(nlp.pipe_names):
        raise DataError(
            f"The spaCy pipeline '{model}' recognises no names. Its components: {', '.join(nlp.pipe_names)}."
        )
    return nlp
