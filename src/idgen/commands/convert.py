"""`idgen convert`: an adapter in another format."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..inputs import AdapterName
from ..terminal import say, show, working


def run(
    source: Annotated[AdapterName, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    /,
    weight_name: str | None = None,
    variant: str | None = None,
) -> None:
    """Convert an adapter to another format. Converting there and back gives the same tensors.

    idgen convert InstantX/InstantID instantid.safetensors

    idgen convert h94/IP-Adapter-FaceID plusv2/ --weight-name ip-adapter-faceid-plusv2_sdxl.bin

    Args:
        source: A folder, a file or a hub id: InstantID, any of IP-Adapter-FaceID, PuLID for SDXL, or an adapter of
            idgen.
        target: A name in .safetensors or .bin is a file in the public layout, any other name a folder of idgen. An
            IdentityNet beside the adapter is converted too, except into .bin.
        weight_name: File of the adapter, if its folder or repository holds several.
        variant: Public format, if neither tensors nor names tell it (faceid-plus, faceid-plusv2, instantid, ...).
    """
    with working(f"Converting {source} …"):
        from ..convert import convert

        parts = convert(source, target, weight_name=weight_name, variant=variant)
    say(f"Wrote {' and '.join(parts)}")
    show(target)
