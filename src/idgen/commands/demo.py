"""`idgen demo`: the page in the browser."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..demo.command import DemoOptions, run_demo
from .shared import open_pipeline


def run(options: Annotated[DemoOptions, tyro.conf.arg(name="")]) -> None:
    """Serve a page in the browser that generates images. docs/demo.md describes the page and its API.

    idgen demo

    idgen demo --base stabilityai/stable-diffusion-xl-base-1.0 --id-adapter InstantX/InstantID
    """
    run_demo(options, open_pipeline)
