"""The tabs of the demo. A tab is a file with its page and its endpoints, and a row in `TABS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from ..backend import Backend
from ..page import Page
from . import (
    attributes,
    compare,
    edit,
    expression,
    generate,
    mix,
    pose,
    protect,
    report,
    restore,
    several_people,
    swap,
    training,
)


@dataclass(frozen=True)
class Tab:
    """A tab of the demo.

    Attributes:
        title: Label of the tab.
        build: Adds the components and endpoints of the tab to the page, inside the given container.
        is_available: Whether the tab is shown, by what the demo was started with.
    """

    title: str
    build: Callable[[Page, gr.Tab], None]
    is_available: Callable[[Backend], bool] = lambda backend: True


TABS = [
    Tab("Generate", generate.build),
    Tab("Several people", several_people.build),
    Tab("Pose", pose.build),
    Tab("Mix", mix.build),
    Tab("Attributes", attributes.build, attributes.is_available),
    Tab("Expression", expression.build, lambda backend: backend.pipeline.expression_adapter is not None),
    Tab("Edit", edit.build),
    Tab("Swap", swap.build),
    Tab("Restore", restore.build, lambda backend: backend.pipeline.restorer is not None),
    Tab("Compare", compare.build),
    Tab("Protect", protect.build),
    Tab("Training", training.build, lambda backend: bool(backend.runs)),
    Tab("Report", report.build, lambda backend: bool(backend.reports)),
]
"""All tabs, in the order of the page."""
