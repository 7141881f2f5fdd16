"""`idgen key`: a secret key for watermarks and fingerprints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..terminal import show


def run(file: Annotated[Path, tyro.conf.Positional], /) -> None:
    """Make a secret key, with which pictures and adapters can be traced to you and to the recipients of copies.

    idgen key studio.key

    idgen generate "a portrait" --photo anna.jpg --tracing-key studio.key --recipient 17

    Args:
        file: File to write. Keep it secret, and keep a copy: only who has it can read the marks.
    """
    from ..provenance.tracing_key import TracingKey

    TracingKey.new().save(file)
    show(file)
