"""docs/api.md lists the public names, all of them exist, and documents import nothing else."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

import idgen

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api.md").read_text()
ENTRY = re.compile(r"^::: (\S+)\n((?: +.*\n)*)", re.MULTILINE)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*.py"))]
PACKAGES = [name for _, name, is_package in pkgutil.iter_modules(idgen.__path__, "idgen.") if is_package]


def resolve(path: str) -> Any:
    """The object of a dotted path; `idgen.enroll` is the function and not the module."""
    found, names = importlib.import_module("idgen"), path.split(".")
    for i, name in enumerate(names[1:], 2):
        found = getattr(found, name) if hasattr(found, name) else importlib.import_module(".".join(names[:i]))
    return found


def entries() -> dict[str, list[str]]:
    """Path → members that the page lists, or all public names of a module without a list."""
    found: dict[str, list[str]] = {}
    for path, options in ENTRY.findall(API):
        members = (yaml.safe_load(options) or {}).get("options", {}).get("members") if options else None
        target = resolve(path)
        if members is None and isinstance(target, ModuleType):
            own = [name for name, value in vars(target).items() if getattr(value, "__module__", None) == path]
            members = getattr(target, "__all__", [name for name in own if name[0] != "_"])
        found[path] = members or []
    return found


def documented() -> set[str]:
    return {*entries(), *(f"{path}.{member}" for path, members in entries().items() for member in members)}


def imports(source: str) -> list[str]:
    """Paths that a piece of code imports from idgen."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "idgen":
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("idgen.")]
    return found


def test_every_documented_name_exists() -> None:
    for path, members in entries().items():
        for member in members:
            assert hasattr(resolve(path), member), f"{path} has no {member}"


@pytest.mark.parametrize("name", ["idgen", *PACKAGES])
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    package = importlib.import_module(name)
    names = getattr(package, "__all__", [])
    assert not [each for each in names if not hasattr(package, each)]
    known = [resolve(path) for path in documented()]  # some names have two places
    missing = [each for each in names if not any(getattr(package, each) is found for found in known)]
    assert not missing, f"not in docs/api.md: {missing}"
    public = [getattr(package, each) for each in names]
    assert all(each.__doc__ for each in public if inspect.isclass(each) or inspect.isfunction(each))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_import_public_names_only(document: Path) -> None:
    text = document.read_text()
    blocks = [token.content for token in MarkdownIt().parse(text) if token.type == "fence" and token.info == "python"]
    for source in [text] if document.suffix == ".py" else blocks:
        private = [path for path in imports(source) if path not in documented()]
        assert not private, f"not in docs/api.md: {private}"
