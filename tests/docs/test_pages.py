"""The pages as a site: tables from the code, the navigation, and the badges of the README."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
with_tables = runpy.run_path(str(ROOT / "docs" / "site.py"))["with_tables"]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "<!-- table" in page.read_text()], ids=lambda page: page.stem
)
def test_tables_are_inserted(page: Path) -> None:
    text = page.read_text()
    built = with_tables(text)
    assert "<!-- table" not in built
    assert built.count("\n| ") > text.count("\n| ") + 5


def test_every_page_is_in_the_navigation() -> None:
    nav = (ROOT / "mkdocs.yml").read_text().partition("nav:\n")[2].partition("\nmarkdown_extensions")[0]
    listed = re.findall(r"(\w+\.md)", str(yaml.safe_load(nav)))
    assert sorted(listed) == [page.name for page in PAGES]


def test_badges_are_true() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    badges = [unquote(name) for name in re.findall(r"badge/(\S+)-\w+\)", (ROOT / "README.md").read_text())]
    floor = next(each for each in project["dependencies"] if each.startswith("diffusers"))
    assert badges == [
        f"licence-{project['license'].replace('-', '--')}",
        f"python-{project['requires-python'].replace('>=', '≥ ')}",
        floor.replace(">=", "-≥ "),
    ]
