"""`Page`: connects components with functions, in the page and in the API."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from .backend import Backend
from .endpoint import endpoint
from .sessions import Session

PIPELINE_QUEUE: dict[str, Any] = {"concurrency_id": "pipeline", "concurrency_limit": 16}
"""Requests that generate images share one queue. So many wait for the pipeline, which takes them in order, and those
with the same settings together; see `Turns`."""


class Page:
    """Arguments for building panels and tabs.

    Attributes:
        backend: Shared by all visitors.
        person: Dropdown of the person that most tabs generate.
        settings: Controls by the names of the fields of `GenerationSettings`, in their order.
        generations: Events that generate images; the Stop button cancels them.
        panels: Where these show their progress.
        people_changes: Events after which the session's people may have changed.
    """

    person: gr.Dropdown
    settings: dict[str, gr.components.FormComponent]

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.generations: list[Any] = []
        self.panels: list[Any] = []
        self.people_changes: list[Any] = []
        self._pairs: list[tuple[gr.Dropdown, gr.Dropdown]] = []
        self._several: list[gr.Dropdown] = []

    def api(self, trigger: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Any, **options: Any):
        """Call a function on an event, and as the API endpoint of the same name."""
        return trigger(endpoint(self.backend, function), list(inputs), outputs, api_name=function.__name__, **options)

    def private(self, trigger: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Any, **options: Any):
        """Call a function on an event, without an API endpoint."""
        return trigger(endpoint(self.backend, function), list(inputs), outputs, api_visibility="private", **options)

    def generates(
        self,
        trigger: Any,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        **own: gr.components.FormComponent,
    ) -> None:
        """Call a function that generates images: its inputs are followed by the settings, and it waits its turn.

        Args:
            trigger: Event.
            function: Has a parameter `request` and returns `Results`.
            inputs: Of the function, in the order of its other parameters.
            outputs: Gallery, table, and the panel of progress; see `components.results`.
            own: Controls of the tab that replace those of the settings of the same name.
        """
        inputs = [*inputs, *(self.settings | own).values()]
        self.panels.append(outputs[-1])
        options = PIPELINE_QUEUE | {"show_progress": "hidden"}
        self.generations.append(self.api(trigger, function, inputs, outputs, **options))

    def two_people(self) -> tuple[gr.Dropdown, gr.Dropdown]:
        """Dropdowns for two people of the session."""
        pair = person_dropdown("First person"), person_dropdown("Second person")
        self._pairs.append(pair)
        return pair

    def several_people(self, maximum: int) -> gr.Dropdown:
        """A dropdown for several people of the session; it shows the first two."""
        several = person_dropdown(f"People (up to {maximum})", multiselect=True, max_choices=maximum)
        self._several.append(several)
        return several

    def update_dropdowns(self, newest: gr.Textbox) -> None:
        """Show the session's people in all dropdowns whenever they change."""
        pairs = [dropdown for pair in self._pairs for dropdown in pair]

        def update(newest: str, person: str, chosen: list[str] | None, session: Session) -> list[gr.Dropdown]:
            names = list(session.people)
            current = newest if newest in names else person if person in names else next(iter(names), None)
            first_two = [names[0] if names else None, names[1] if len(names) > 1 else None] * len(self._pairs)
            kept = [name for name in chosen or [] if name in names]
            several = [kept if len(kept) > 1 else names[:2]] * len(self._several)
            return [gr.Dropdown(choices=names, value=value) for value in (current, *first_two, *several)]

        inputs = [newest, self.person, self._several[0] if self._several else gr.State([])]
        outputs = [self.person, *pairs, *self._several]
        for event in self.people_changes:
            self.private(event.then, update, inputs, outputs, show_progress="hidden")


def person_dropdown(label: str, **options: Any) -> gr.Dropdown:
    """A dropdown of people. Unknown names reach our own check: API clients may know people that the page does not."""
    return gr.Dropdown(choices=[], label=label, allow_custom_value=True, interactive=True, **options)
