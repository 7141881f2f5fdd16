"""`idgen inspect`: the marks of an image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..provenance.command import inspect
from ..terminal import show_table


def run(picture: Annotated[Path, tyro.conf.Positional], /) -> None:
    """Show the marks of an image: settings, invisible watermark, Content Credentials.

    idgen inspect picture.png

    Args:
        picture: Any image file, written by idgen or not.
    """
    show_table(inspect(picture))
