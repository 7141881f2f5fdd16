"""Output of the commands. Control characters in names, paths and errors are escaped, so that they cannot act."""

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
"""Zero-width characters that some scripts and emoji need."""

console = Console(stderr=True, highlight=False)


def visible(text: object, keep: str = "") -> str:
    """Escape invisible characters, for example as `\\x1b`.

    These are control characters, including line breaks, marks that change the direction of text, and unpaired
    surrogates.

    Args:
        text: Any object; its `str` is used.
        keep: Characters that are not escaped.
    """
    return "".join(
        letter if _is_seen(letter) or letter in keep else letter.encode("unicode_escape").decode()
        for letter in str(text)
    )


def say(text: object) -> None:
    """Print a message to stderr."""
    console.print(Text(visible(text)), soft_wrap=True)


def say_error(error: Exception) -> None:
    """Print an error to stderr, on one line."""
    console.print(Text.assemble(("Error:", "bold red"), " ", visible(error)), soft_wrap=True)


def warn(text: object) -> None:
    """Print a warning to stderr, on one line."""
    console.print(Text.assemble(("Warning:", "bold yellow"), " ", visible(text)), soft_wrap=True)


def show(result: object) -> None:
    """Print a result to stdout."""
    print(visible(result), flush=True)


def show_table(facts: Mapping[str, object]) -> None:
    """Print names and values to stdout, one pair per line."""
    out = Console(highlight=False)
    names = [visible(name) for name in facts]
    width = max(map(len, names), default=0)
    for name, value in zip(names, facts.values(), strict=True):
        out.print(Text.assemble((name.ljust(width), "bold"), "  ", visible(value)), soft_wrap=True)


def working(text: str) -> AbstractContextManager[object]:
    """Show a spinner with this text, inside the `with`."""
    return console.status(Text(visible(text)))


@contextmanager
def guarded() -> Iterator[None]:
    """Show this package's warnings, each on one line, and no warnings of libraries unless Python's -W asks for them.

    Control characters in warnings and log messages are escaped, except for line breaks. Characters that the terminal's
    encoding lacks are escaped on stdout.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", module=r"idgen(\.|$)")
        with _escaped():
            yield


@contextmanager
def _escaped() -> Iterator[None]:
    """Escape control characters in warnings and log messages of all libraries."""
    format_warning, factory = warnings.formatwarning, logging.getLogRecordFactory()

    def warning(message: Any, *_: Any, **__: Any) -> str:
        text = visible(message, keep="\n")
        return f"Warning: {text}\n"

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = factory(*args, **kwargs)
        with suppress(Exception):  # logging reports a message that does not fit its arguments
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
