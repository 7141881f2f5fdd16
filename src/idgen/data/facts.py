"""What is said of a photo beside it or in a table: person, caption and licence, as one text each."""

from __future__ import annotations

import codecs
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

_NAMES = {"label": ("person",), "caption": ("caption",), "licence": ("licence", "license")}


def clean(value: Any) -> str | None:
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


def facts_of(record: Mapping[str, Any]) -> dict[str, str]:
    """`label`, `caption` and `licence`, as far as a row of a table or an object of JSON tells them."""
    found = {ours: (clean(record.get(name)) for name in theirs) for ours, theirs in _NAMES.items()}
    texts = {ours: next((text for text in values if text), None) for ours, values in found.items()}
    return {name: text for name, text in texts.items() if text is not None}


def facts_of_json(text: str) -> dict[str, str]:
    """The same of a text of JSON; nothing if it is damaged or not an object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return facts_of(found) if isinstance(found, dict) else {}


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
