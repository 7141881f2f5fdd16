"""`idgen inspect`: the marks of an image."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..inputs import InputPath
from ..terminal import show_table


def run(picture: Annotated[InputPath, tyro.conf.Positional], /) -> None:
    """Show the marks of an image: settings, invisible watermark, Content Credentials.

    idgen inspect picture.png

    Args:
        picture: Any image file, written by idgen or not.
    """
    from ..provenance.command import inspect

    show_table(inspect(picture))
