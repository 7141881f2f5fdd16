"""`idgen prepare`: photos of people → shards."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..data.command import PrepareArguments, run_prepare
from ..terminal import show


def run(arguments: Annotated[PrepareArguments, tyro.conf.arg(name="")]) -> None:
    """Turn photos of people into shards for training. docs/prepare.md explains it.

    idgen prepare photos/ --output shards/

    idgen prepare s3://bucket/photos --output s3://bucket/shards --engine ray --address auto

    idgen prepare --report shards/
    """
    show(run_prepare(arguments))
