"""`idgen inspect`: the marks of an image."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..inputs import InputPath
from ..terminal import show_table


def run(picture: Annotated[InputPath, tyro.conf.Positional], /, tracing_key: tuple[InputPath, ...] = ()) -> None:
    """Show the marks of an image: settings, invisible watermark, Content Credentials.

    idgen inspect picture.png

    idgen inspect picture.png --tracing-key studio.key partner.key

    Args:
        picture: Any image file, written by idgen or not.
        tracing_key: Keys written by `idgen key`. The command says which of them the watermark was made with, and for
            which recipient. For each key, 1 of 3,000 images that were not made with it seems to be.
    """
    from ..provenance.command import inspect

    show_table(inspect(picture, tracing_key))
