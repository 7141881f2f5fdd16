"""Links of the pages to files of the repository, which are no pages: they lead to the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./([^)#]+)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Called by mkdocs for each page; a link to a file that is not there stops the build."""

    def to_repository(found: re.Match[str]) -> str:
        if not (ROOT / found[1]).exists():
            raise PluginError(f"{page.file.src_uri} links to ../{found[1]}, which does not exist.")
        return f"]({config.repo_url}/blob/main/{found[1]})"

    return LINK.sub(to_repository, markdown)
