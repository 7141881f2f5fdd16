"""`idgen info`: what an adapter or an identity file holds."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..inputs import AdapterName
from ..terminal import show_table


def run(path: Annotated[AdapterName, tyro.conf.Positional], /) -> None:
    """Show what an adapter or an identity file holds.

    idgen info anna.safetensors

    idgen info InstantX/InstantID

    Args:
        path: An identity file, or the folder, file or hub id of an adapter.
    """
    from ..info import info

    show_table(info(path))
