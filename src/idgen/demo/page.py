"""`Page`: connects components with functions, in the page and in the API."""

from __future__ import annotations

import functools
import html
import inspect
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from inspect import Parameter
from typing import Any

import gradio as gr

from ..errors import IdgenError
from .backend import Backend, GenerationRequest
from .generation import TYPES, GenerationSettings
from .pipeline import OnStep
from .sessions import Session, Sessions

PIPELINE_QUEUE: dict[str, Any] = {"concurrency_id": "pipeline", "concurrency_limit": 1}
"""Requests that generate images share one queue and are answered in order."""

KIND = Parameter.POSITIONAL_OR_KEYWORD


class Page:
    """What panels and tabs are built with.

    Attributes:
        backend: Shared by all visitors.
        person: Dropdown of the person that most tabs generate.
        settings: Controls by the names of the fields of `GenerationSettings`, in their order.
        generations: Events that generate images; the Stop button cancels them.
        people_changes: Events after which the session's people may have changed.
    """

    person: gr.Dropdown
    settings: dict[str, gr.components.FormComponent]

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.generations: list[Any] = []
        self.people_changes: list[Any] = []
        self._pairs: list[tuple[gr.Dropdown, gr.Dropdown]] = []

    def api(self, trigger: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Any, **options: Any):
        """Call a function on an event, and as the API endpoint of the same name."""
        return trigger(endpoint(self.backend, function), list(inputs), outputs, api_name=function.__name__, **options)

    def private(self, trigger: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Any, **options: Any):
        """Call a function on an event, without an API endpoint."""
        return trigger(endpoint(self.backend, function), list(inputs), outputs, api_visibility="private", **options)

    def generates(self, trigger: Any, function: Callable[..., Any], inputs: Sequence[Any], outputs: Any) -> None:
        """Call a function that generates images: its inputs are followed by the settings, and it waits its turn."""
        inputs = [*inputs, *self.settings.values()]
        self.generations.append(self.api(trigger, function, inputs, outputs, **PIPELINE_QUEUE))

    def two_people(self) -> tuple[gr.Dropdown, gr.Dropdown]:
        """Dropdowns for two people of the session."""
        pair = person_dropdown("First person"), person_dropdown("Second person")
        self._pairs.append(pair)
        return pair

    def update_dropdowns(self, newest: gr.Textbox) -> None:
        """Show the session's people in all dropdowns whenever they change."""
        pairs = [dropdown for pair in self._pairs for dropdown in pair]

        def update(newest: str, person: str, session: Session) -> list[gr.Dropdown]:
            names = list(session.people)
            current = newest if newest in names else person if person in names else next(iter(names), None)
            first_two = [names[0] if names else None, names[1] if len(names) > 1 else None] * len(self._pairs)
            return [gr.Dropdown(choices=names, value=value) for value in (current, *first_two)]

        for event in self.people_changes:
            self.private(event.then, update, [newest, self.person], [self.person, *pairs], show_progress="hidden")


def person_dropdown(label: str, **options: Any) -> gr.Dropdown:
    """A dropdown of people. Unknown names reach our own check: API clients may know people that the page does not."""
    return gr.Dropdown(choices=[], label=label, allow_custom_value=True, interactive=True, **options)


SETTINGS = [Parameter(f.name, KIND, annotation=TYPES[str(f.type)]) for f in fields(GenerationSettings)]

SPECIAL = {
    "backend": [],
    "session": [Parameter("session", KIND, annotation=gr.Request)],
    "click": [Parameter("click", KIND, annotation=gr.SelectData)],
    "request": [
        *SETTINGS,
        Parameter("request", KIND, annotation=gr.Request),
        Parameter("progress", KIND, default=gr.Progress(), annotation=Any),
    ],
}
"""Parameters of our functions that are filled in, and the parameters that Gradio sees instead."""


def endpoint(backend: Backend, function: Callable[..., Any]) -> Callable[..., Any]:
    """Adapt a function to Gradio.

    Its parameters `backend`, `session`, `click` and `request` (a `GenerationRequest`) are filled in. The others keep
    their names, which API clients use; the settings of a request follow them. The session owns the files in the values
    from then on. Our own errors are shown in the page, without a traceback.

    Args:
        backend: Passed to the function; its sessions own the files.
        function: Its name is the name of the API endpoint.
    """
    names = list(inspect.signature(function).parameters)
    inputs, special = ([n for n in names if (n in SPECIAL) == is_special] for is_special in (False, True))

    @functools.wraps(function)
    def call(*values: Any) -> Any:
        given = iter(values)
        try:
            arguments = {name: next(given) for name in inputs}
            arguments |= {name: _fill_in(backend, name, given, values) for name in special}
            return function(**arguments)
        except IdgenError as error:
            raise gr.Error(_message(error, backend.sessions), print_exception=False) from error

    parameters = [Parameter(name, KIND, annotation=Any) for name in inputs]
    parameters += [parameter for name in special for parameter in SPECIAL[name]]
    call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del call.__wrapped__
    return call


def _fill_in(backend: Backend, name: str, given: Iterator[Any], values: Sequence[Any]) -> Any:
    if name == "backend":
        return backend
    if name == "click":
        return next(given)
    settings = GenerationSettings(**{s.name: next(given) for s in SETTINGS}) if name == "request" else None
    session = backend.sessions.open(next(given).session_hash)
    backend.sessions.keep(session, _texts(values))
    return session if settings is None else GenerationRequest(backend, session, settings, _progress(next(given)))


def _progress(progress: gr.Progress) -> OnStep:
    def show(done: int, total: int) -> None:
        progress((done, total), desc="Generating", unit="steps")

    return show


def _texts(values: Any) -> Iterator[str]:
    """All strings in the values of components; paths are among them."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        yield from _texts(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value)


def _message(error: IdgenError, sessions: Sessions) -> str:
    """The message as HTML, which Gradio shows, without the paths of uploaded files."""
    text = re.sub(rf"{re.escape(os.fspath(sessions.folder))}(/[0-9a-f]{{32,64}})+/", "", str(error))
    return html.escape(text, quote=False)
