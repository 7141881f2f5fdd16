"""What the commands print. Names, paths and errors come from anywhere: they appear as they are, and act on nothing."""

from __future__ import annotations

import logging
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.text import Text

JOINERS = "\u200c\u200d"
"""Zero-width characters that words and emoji are written with."""

console = Console(stderr=True, highlight=False)


def visible(text: Any, keep: str = "") -> str:
    """Text in which every character that would act and not be seen is replaced by its number, such as `\\x1b`.

    These are the control characters, line breaks among them, marks that change the direction of the text, and halves
    of surrogate pairs.

    Args:
        text: Anything; what `str` makes of it is meant.
        keep: Characters that stay.
    """
    return "".join(
        letter if _is_seen(letter) or letter in keep else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def say(text: Any) -> None:
    """Print a message to stderr."""
    console.print(Text(visible(text)), soft_wrap=True)


def say_error(error: Exception) -> None:
    """Print an error to stderr, in one line."""
    console.print(Text.assemble(("Error:", "bold red"), " ", visible(error)), soft_wrap=True)


def show(result: Any) -> None:
    """Print a result to stdout."""
    print(visible(result), flush=True)


def show_table(facts: Mapping[str, Any]) -> None:
    """Print names and values to stdout, a line each."""
    out = Console(highlight=False)
    names = [visible(name) for name in facts]
    width = max(map(len, names), default=0)
    for name, value in zip(names, facts.values(), strict=True):
        out.print(Text.assemble((name.ljust(width), "bold"), "  ", visible(value)), soft_wrap=True)


def working(text: str) -> AbstractContextManager[Any]:
    """Show that something takes a while, inside the `with`."""
    return console.status(Text(visible(text)))


@contextmanager
def guarded() -> Iterator[None]:
    """Make warnings and log messages visible too, of all libraries; line breaks stay in them.

    Outside the terminal's encoding a character is printed as its number.
    """
    format_warning, factory = warnings.formatwarning, logging.getLogRecordFactory()

    def warning(message: Any, *place: Any, **kwargs: Any) -> str:
        return visible(format_warning(message, *place, **kwargs), keep="\n")

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = factory(*args, **kwargs)
        with suppress(Exception):  # a message that does not fit its arguments is logging's to report
            made.msg, made.args = visible(made.getMessage(), keep="\n"), ()
        return made

    warnings.formatwarning = warning
    logging.setLogRecordFactory(record)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore
    try:
        yield
    finally:
        warnings.formatwarning = format_warning
        logging.setLogRecordFactory(factory)


def _is_seen(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs" or letter in JOINERS
