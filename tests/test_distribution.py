"""What is installed by which name and in which versions."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

FLOORS = "IDGEN_FLOORS"
"""Environment variable: a Python interpreter, for which the declared floors are installed in a new environment."""

SMOKE = (
    "tests/test_identity.py",
    "tests/adapter/test_identity_net.py",
    "tests/pipelines/test_mixin.py",
    "tests/training/test_parts.py",
    "tests/training/test_command.py",
    "tests/evaluation/test_command.py",
    "tests/data/test_command.py",
    "tests/demo/test_tabs.py",
    "tests/provenance",
    "tests/faces",
)
"""Tests that together import every declared dependency and use it."""

WITHOUT = {"docs", "dev", "pulid"}
"""Extras that the floors leave out: those of developers, and one whose torchvision requires its own build of torch."""


def requirements() -> Iterator[Requirement]:
    """All that users install, each once."""
    lists = [PROJECT["dependencies"], *(EXTRAS[extra] for extra in EXTRAS if extra not in WITHOUT)]
    for line in dict.fromkeys(line for each in lists for line in each):
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:
            yield requirement


def test_every_hint_installs_this_package() -> None:
    """The name of the command, `idgen`, is that of somebody else's package on the index."""
    files = [path for folder in ("src", "docs", "examples", "demos", "train") for path in (ROOT / folder).rglob("*")]
    texts = [path for path in [*files, ROOT / "README.md"] if path.suffix in {".py", ".md", ".ipynb"}]
    named = re.compile(r"(?:pip install |`)['\"\\]*([\w-]*idgen[\w-]*|\.)(?:\[([\w,]+)\])")
    found = [(path, *match) for path in texts for match in named.findall(path.read_text())]
    assert len(found) > 15
    for path, name, extras in found:
        assert name in (PROJECT["name"], "."), path
        assert set(extras.split(",")) <= set(EXTRAS), path


def test_every_dependency_has_one_floor() -> None:
    floors: dict[str, set[str]] = {}
    for requirement in requirements():
        floors.setdefault(requirement.name, set()).add(str(requirement.specifier))
    assert {name: versions for name, versions in floors.items() if len(versions) != 1} == {}
    assert all(re.fullmatch(r">=[\w.]+", version) for versions in floors.values() for version in versions)
    assert not [name for name in SMOKE if not (ROOT / name).exists()]


@pytest.mark.skipif(FLOORS not in os.environ, reason=f"installs some gigabytes: set {FLOORS} to a Python interpreter")
def test_the_floors_work_together(tmp_path: Path) -> None:
    constraints = tmp_path / "floors.txt"
    constraints.write_text("".join(f"{r.name}{str(r.specifier).replace('>=', '==')}\n" for r in requirements()))
    extras = ",".join(extra for extra in EXTRAS if extra not in WITHOUT)
    python = tmp_path / "venv" / "bin" / "python"
    commands = [
        [os.environ[FLOORS] or sys.executable, "-m", "venv", tmp_path / "venv"],
        [python, "-m", "pip", "install", "--quiet", "--constraint", constraints, f"{ROOT}[{extras}]", "pytest"],
        [python, "-m", "pip", "check"],
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SMOKE],
    ]
    for command in commands:
        subprocess.run(command, cwd=ROOT, check=True)
