"""Metadata of a photo, from a file beside it or a table: person, group, caption, licence, date, origin, landmarks and
`reference`."""

from __future__ import annotations

import codecs
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal

_KEYS = {
    "label": ("person",),
    "group": ("group",),
    "caption": ("caption",),
    "licence": ("licence", "license"),
    "date": ("date", "year"),
    "origin": ("origin", "source"),
}
COLUMNS = (*(name for names in _KEYS.values() for name in names), "reference", "landmarks")
"""Names of all columns of a table that are read."""
NAMES = (*_KEYS, "reference", "landmarks")
"""Names of all metadata."""
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class UnclearMetadataError(ValueError):
    """A value cannot be understood; the message is the reason why the photo is dropped."""


def clean(value: object) -> str | None:
    """A value of JSON, parquet or CSV as the text it is compared by; None if it says nothing.

    A number is the same text whatever its type: 1, 1.0 and "1" are one person. NaN, which tables hold where a value is
    missing, true and false, lists and objects say nothing. Bytes that are not UTF-8 (Python holds them as lone
    surrogates) become their numbers. macOS writes é as two letters: without composing them one person would be two.
    """
    if value is None or isinstance(value, bool | list | tuple | dict):
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    elif isinstance(value, float | Decimal):
        if not math.isfinite(value):
            return None
        value = int(value) if value == int(value) else value
    return unicodedata.normalize("NFC", str(value).encode("utf-8", "backslashreplace").decode()).strip() or None


def metadata_of(record: Mapping[str, object]) -> dict[str, str]:
    """The values of `NAMES` as texts, as far as a row of a table or an object of JSON has them. `flag` and `points`
    read `reference` and `landmarks`."""
    found = {ours: (clean(record.get(name)) for name in theirs) for ours, theirs in _KEYS.items()}
    texts = {ours: next((text for text in values if text), None) for ours, values in found.items()}
    for name in NAMES[len(_KEYS) :]:
        value = record.get(name)
        texts[name] = str(value).lower() if isinstance(value, bool | list | tuple) else clean(value)
    return {name: text for name, text in texts.items() if text is not None}


def flag(text: str | None) -> bool:
    """Whether a photo is a reference; it is if nothing is said.

    Raises:
        UnclearMetadataError: The text is neither true, yes or 1 nor false, no or 0.
    """
    if text is None:
        return True
    if text.lower() not in _FLAGS:
        raise UnclearMetadataError("unclear-reference")
    return _FLAGS[text.lower()]


def points(text: str | None) -> tuple[float, ...] | None:
    """Five landmarks, x0, y0, x1, y1 and so on in pixels, of ten numbers in a text; brackets are ignored.

    Raises:
        UnclearMetadataError: There are not ten finite numbers, or the points lie within one pixel.
    """
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in re.split(r"[\s,;()\[\]]+", text) if part)
    except ValueError:
        numbers = ()
    spread = [max(part) - min(part) for part in (numbers[::2], numbers[1::2]) if part]
    if len(numbers) != 10 or not all(map(math.isfinite, numbers)) or min(spread) < 1:
        raise UnclearMetadataError("unclear-landmarks")
    return numbers


def metadata_of_json(text: str) -> dict[str, str]:
    """The same of a text of JSON; nothing if it is damaged or not an object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return metadata_of(found) if isinstance(found, dict) else {}


def encoding_of(blocks: Iterable[bytes]) -> str:
    """How a text file is encoded: UTF-8 or UTF-16 by its mark, UTF-8 if it is valid, or else Windows' code page 1252,
    which Excel writes."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for number, block in enumerate(blocks):
        if not number and block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        try:
            decoder.decode(block)
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


def decode(data: bytes) -> str:
    """The text of a file in any of the encodings of `encoding_of`; bytes that are in none of them are replaced."""
    return data.decode(encoding_of([data]), "replace")
