"""Every block of Python in README and docs runs, and the command line understands every command."""

from __future__ import annotations

import functools
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

from idgen import cli
from idgen.commands import COMMANDS
from idgen.training import command as training

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

sybil = Sybil(parsers=[PythonCodeBlockParser(), SkipParser()])


class Existing(type(Path())):
    """A path that exists: pages name files of the reader."""

    def exists(self, **_: object) -> bool:
        return True


def commands(page: Path) -> list[str]:
    """The `idgen` commands in a page's blocks; a line that ends in a backslash continues in the next."""
    blocks = [token.content for token in MarkdownIt().parse(page.read_text()) if token.type == "fence"]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("idgen ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_python(page: Path, surroundings: Callable[[str], dict[str, Any]]) -> None:
    document = sybil.parse(page)
    document.namespace.update(surroundings(page.stem))
    for example in document.examples():
        example.evaluate()


@pytest.mark.parametrize("command", [line for page in PAGES for line in commands(page)])
def test_commands(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real parser reads the command and calls its function, which is replaced by one that does nothing."""
    called = []
    monkeypatch.setattr("idgen.inputs.Path", Existing)
    for name in COMMANDS.keys() - {"train"}:
        module = import_module(f"idgen.commands.{name}")
        record = functools.wraps(module.run)(lambda *_, name=name, **__: called.append(name))
        monkeypatch.setattr(module, "run", record)
    monkeypatch.setattr(training, "train", lambda *arguments: (training.parse(*arguments), called.append("train")))
    words = shlex.split(command, comments=True)
    monkeypatch.setattr(sys, "argv", words)
    cli.main()
    assert called == [words[1]]
