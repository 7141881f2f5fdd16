"""`Wiring`: which function answers which event, on the page and in the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from .functions import Functions
from .requests import endpoint
from .sessions import Sessions

PIPELINE: dict[str, Any] = {"concurrency_id": "pipeline", "concurrency_limit": 1}
"""One queue, in order, for all that draws."""


class Wiring:
    """Connects components with functions.

    Attributes:
        functions: What the page can ask for.
        sessions: Of all pages.
        person: Whom most tabs draw.
        controls: By the names of the fields of `Settings`, in their order.
        drawings: Events that draw: what the button “Stop” ends.
        known: Events after which the page knows other people than before.
        pairs: Dropdowns for two people.
    """

    person: gr.Dropdown
    controls: dict[str, Any]

    def __init__(self, functions: Functions, sessions: Sessions) -> None:
        self.functions, self.sessions = functions, sessions
        self.drawings: list[Any] = []
        self.known: list[Any] = []
        self.pairs: list[tuple[gr.Dropdown, gr.Dropdown]] = []

    def api(self, trigger: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Any, **options: Any):
        """Answer an event, and the endpoint that is called as the function."""
        return trigger(self._call(function), list(inputs), outputs, api_name=function.__name__, **options)

    def inside(self, trigger: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Any, **options: Any):
        """Answer an event of the page alone."""
        return trigger(self._call(function), list(inputs), outputs, api_visibility="private", **options)

    def _call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return endpoint(self.sessions, function)

    def draws(self, trigger: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Any) -> None:
        """Answer an event with a drawing: its inputs are followed by the settings, and it waits for its turn."""
        self.drawings.append(self.api(trigger, function, [*inputs, *self.controls.values()], outputs, **PIPELINE))

    def two_people(self) -> tuple[gr.Dropdown, gr.Dropdown]:
        """Dropdowns for two of the people that the page knows."""
        pair = person_dropdown("First person"), person_dropdown("Second person")
        self.pairs.append(pair)
        return pair

    def finish(self, newest: gr.Textbox) -> None:
        """Let all dropdowns follow the people that the page knows."""
        pairs = [dropdown for pair in self.pairs for dropdown in pair]

        def follow(newest: str, person: str, session: Any) -> list[Any]:
            names = list(session.people)
            latest = newest if newest in names else person if person in names else next(iter(names), None)
            places = [names[0] if names else None, names[1] if len(names) > 1 else None] * len(self.pairs)
            return [gr.Dropdown(choices=names, value=value) for value in (latest, *places)]

        for event in self.known:
            self.inside(event.then, follow, [newest, self.person], [self.person, *pairs], show_progress="hidden")


def person_dropdown(label: str) -> gr.Dropdown:
    """Of people; a name that nobody has is our own error, since clients may know a person before the page does."""
    return gr.Dropdown(choices=[], label=label, allow_custom_value=True, interactive=True)
