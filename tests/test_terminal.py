"""Any string in any place appears on the terminal as it is, and its control characters are visible and do nothing."""

from __future__ import annotations

import ast
import json
import logging
import random
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from idgen import Identity, cli, terminal
from idgen.errors import IdgenError
from idgen.provenance import IdentityBlocklist
from idgen.provenance.metadata import write_png

WORDS = [
    "[b]",
    "[/b]",
    "[loop]",
    "[/]",
    "idgen[train]",
    "[link=file:x]y[/link]",
    ":warning:",
    "%s",
    "{0}",
    "é",
    "名前",
    "👩\u200d🚀",
]
CONTROLS = [
    "\x1b[31m",
    "\x1b]0;title\x07",
    "\x1b[2J",
    "\r",
    "\n",
    "\t",
    "\x08",
    "\x00",
    "\x7f",
    "\x9b1m",
    "\u202e",
    "\u2028",
    "\ufeff",
    "�",
]
PIECES = (*WORDS, *CONTROLS, "\xa0", " ", "a" * 90)
STYLE = re.compile(r"\x1b\[[0-9;]*m")


def strings(count: int) -> list[str]:
    """Seeded mixtures of what a terminal or Rich could read as something else, and each piece alone."""
    chance = random.Random(17)
    return [*PIECES, *("".join(chance.choices(PIECES, k=chance.randint(2, 8))) for _ in range(count))]


def could_act(printed: str) -> list[str]:
    """What is left in a terminal's input that is not printed letters, line ends and our own colours."""
    return [letter for letter in STYLE.sub("", printed) if letter != "\n" and not terminal._is_seen(letter)]


@pytest.fixture(params=[False, True], ids=["piped", "terminal"])
def run(request, monkeypatch, capsys) -> Callable[..., tuple[str, str]]:
    """Run a command in this process; what it prints to both streams."""
    monkeypatch.setattr(terminal, "console", Console(stderr=True, highlight=False, force_terminal=request.param))
    if request.param:
        monkeypatch.setenv("FORCE_COLOR", "1")

    def run(*arguments: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["idgen", *map(str, arguments)])
        with suppress(SystemExit):
            cli.main()
        printed, errors = capsys.readouterr()
        assert not could_act(printed + errors), (printed, errors)
        return STYLE.sub("", printed), STYLE.sub("", errors)

    return run


@pytest.mark.parametrize("text", strings(60), ids=ascii)
def test_errors_appear_as_they_are(text, capsys, monkeypatch):
    for forced in (False, True):
        monkeypatch.setattr(terminal, "console", Console(stderr=True, highlight=False, force_terminal=forced))
        terminal.say_error(IdgenError(f"'{text}' is missing."))
        printed = STYLE.sub("", capsys.readouterr().err)
        assert printed == f"Error: '{terminal.visible(text)}' is missing.\n"


@pytest.mark.parametrize("text", strings(60), ids=ascii)
def test_visible_text_says_what_it_stands_for(text):
    shown = terminal.visible(text)
    assert not could_act(shown)
    assert "\n" not in shown
    number = re.compile(r"\\(?:x..|u....|[nrt])")
    assert number.sub(lambda found: ast.literal_eval(f"'{found[0]}'"), shown) == text


def test_commands_show_strangers_words_as_they_are(run, tmp_path: Path):
    """The name and the encoder in an identity, the encoder of a blocklist, a picture's settings, and paths."""
    some = "".join(piece for piece in PIECES if piece not in ("\0", "\ud800", "a" * 90))
    for i, text in enumerate((some, *strings(40)[-2:])):
        words, path = terminal.visible(text), tmp_path / f"{i}"
        if "\ud800" not in text:  # which JSON refuses
            person = Identity(embeddings=torch.ones(1, 4), encoder=text, name=text)
            person.save(f"{path}.safetensors")
            printed, _ = run("info", f"{path}.safetensors")
            assert f"  {words}\n" in printed
            assert printed.count(words) >= 2
            IdentityBlocklist.of(person, threshold=0.5).save(f"{path}.blocklist")
            assert words in run("blocklist", f"{path}.blocklist")[0]
            Path(f"{path}.png").write_bytes(write_png(Image.new("RGB", (8, 8)), {"prompt": text, f"a{text}": 1}))
            assert words in run("inspect", f"{path}.png")[0]
        if "\0" not in text and "\ud800" not in text and len(text) < 200:
            assert words in run("info", tmp_path / text / "nowhere")[1]
        save_file({"a": torch.ones(1)}, f"{path}.other", metadata={"format": json.dumps(text)})
        assert "is not a blocklist" in run("blocklist", f"{path}.other")[1]


def test_warnings_and_logs_of_any_library(capsys):
    text = "\x1b[31m[b]\n100 % s"
    log = logging.getLogger("diffusers.test")
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    try:
        with terminal.guarded():
            sys.stderr.write(warnings.formatwarning(text, UserWarning, "file.py", 1, ""))  # pytest keeps them itself
            log.error("Was given %s.", text)
            log.error(text)
    finally:
        log.removeHandler(handler)
    printed = capsys.readouterr().err
    assert not could_act(printed)
    assert printed.count("\\x1b[31m[b]\n100 % s") == 3
