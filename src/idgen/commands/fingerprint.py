"""`idgen fingerprint`: an adapter → a copy of it that can be traced to its recipient."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..inputs import AdapterName, InputPath
from ..terminal import show, working


def run(
    adapter: Annotated[AdapterName, tyro.conf.Positional],
    /,
    output: Path,
    tracing_key: InputPath,
    recipient: int,
    strength: float = 0.01,
    weight_name: str | None = None,
) -> None:
    """Make a copy of an adapter for one recipient. `idgen trace` tells whose copy it is, if it turns up elsewhere.

    idgen fingerprint adapter/ --tracing-key studio.key --recipient 17 --output for-17/

    idgen trace found/ --original adapter/ --tracing-key studio.key

    Keep the adapter itself, and do not publish it: it is what copies are compared with.

    Args:
        adapter: A folder, a file or a hub id, of idgen or in a public format.
        output: A name in .safetensors or .bin is a file in the public layout, any other name a folder of idgen. An
            IdentityNet beside the adapter is copied as it is.
        tracing_key: Key written by `idgen key`.
        recipient: A number from 0 to 255. Keep a list of who has which.
        strength: Change of the weights, in standard deviations of each matrix.
        weight_name: File of the adapter, if its folder or repository holds several.
    """
    with working(f"Opening {adapter} …"):
        from ..convert import convert
        from ..provenance.fingerprint import fingerprint_weights
        from ..provenance.tracing_key import TracingKey

        key = TracingKey.load(tracing_key)
        convert(
            adapter,
            output,
            weight_name=weight_name,
            change=lambda weights: fingerprint_weights(weights, key, recipient, strength),
        )
    show(output)
