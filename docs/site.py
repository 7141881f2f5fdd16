"""Changes of the pages when the site is built: links to files of the repository, and tables from the code.

`<!-- table: package.module.function -->` in a page is replaced by the Markdown that the function returns.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./([^)#]+)\)")
TABLE = re.compile(r"<!-- table: ([\w.]+)\.(\w+) -->")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Called by mkdocs for each page. A link to a missing file stops the build."""

    def to_repository(found: re.Match[str]) -> str:
        if not (ROOT / found[1]).exists():
            raise PluginError(f"{page.file.src_uri} links to ../{found[1]}, which does not exist.")
        return f"]({config.repo_url}/blob/main/{found[1]})"

    return LINK.sub(to_repository, with_tables(markdown))


def with_tables(markdown: str) -> str:
    """Insert the tables that a page asks for."""
    return TABLE.sub(lambda found: getattr(importlib.import_module(found[1]), found[2])(), markdown)
