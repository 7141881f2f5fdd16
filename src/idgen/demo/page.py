"""`Page`: connects components with functions, in the page and in the API."""

from __future__ import annotations

import functools
import html
import inspect
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from inspect import Parameter
from typing import Any

import gradio as gr

from ..errors import IdgenError
from .backend import Backend, GenerationRequest
from .generation import TYPES, GenerationSettings
from .live import LiveCall
from .panel import STARTING, finished
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

        def update(newest: str, person: str, session: Session) -> list[gr.Dropdown]:
            names = list(session.people)
            current = newest if newest in names else person if person in names else next(iter(names), None)
            first_two = [names[0] if names else None, names[1] if len(names) > 1 else None] * len(self._pairs)
            values = [current, *first_two, *[names[:2]] * len(self._several)]
            return [gr.Dropdown(choices=names, value=value) for value in values]

        outputs = [self.person, *pairs, *self._several]
        for event in self.people_changes:
            self.private(event.then, update, [newest, self.person], outputs, show_progress="hidden")


def person_dropdown(label: str, **options: Any) -> gr.Dropdown:
    """A dropdown of people. Unknown names reach our own check: API clients may know people that the page does not."""
    return gr.Dropdown(choices=[], label=label, allow_custom_value=True, interactive=True, **options)


SETTINGS = [Parameter(f.name, KIND, annotation=TYPES[str(f.type)]) for f in fields(GenerationSettings)]

PROGRESS = Parameter("progress", KIND, default=gr.Progress(), annotation=Any)

SPECIAL = {
    "backend": [],
    "session": [Parameter("session", KIND, annotation=gr.Request)],
    "on_step": [PROGRESS],
    "click": [Parameter("click", KIND, annotation=gr.SelectData)],
    "request": [
        *SETTINGS,
        Parameter("request", KIND, annotation=gr.Request),
        PROGRESS,
    ],
}
"""Parameters of our functions that are filled in, and the parameters that Gradio sees instead."""


def endpoint(backend: Backend, function: Callable[..., Any]) -> Callable[..., Any]:
    """Adapt a function to Gradio.

    Its parameters `backend`, `session`, `click`, `on_step` and `request` (a `GenerationRequest`) are filled in. The
    others keep their names, which API clients use; the settings of a request follow them. The session owns the files
    in the values from then on. Our own errors are shown in the page, without a traceback. A function with a `request`
    becomes a generator, which reports the progress.

    Args:
        backend: Passed to the function; its sessions own the files.
        function: Its name is the name of the API endpoint.
    """
    names = list(inspect.signature(function).parameters)
    inputs, special = ([n for n in names if (n in SPECIAL) == is_special] for is_special in (False, True))

    def arguments(values: Sequence[Any]) -> dict[str, Any]:
        given = iter(values)
        named = {name: next(given) for name in inputs}
        return named | {name: _fill_in(backend, name, given, values) for name in special}

    def answer(*values: Any) -> Any:
        with _shown_errors(backend.sessions):
            return function(**arguments(values))

    def generate(*values: Any) -> Iterator[Any]:
        with _shown_errors(backend.sessions):
            yield from _generate(function, arguments(values))

    call = functools.wraps(function)(generate if "request" in special else answer)
    parameters = [Parameter(name, KIND, annotation=Any) for name in inputs]
    parameters += [parameter for name in special for parameter in SPECIAL[name]]
    call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del call.__wrapped__
    return call


def _generate(function: Callable[..., Any], arguments: dict[str, Any]) -> Iterator[Any]:
    """Values of the gallery, the table and the panel: the progress of a request, and at last its results."""
    request: GenerationRequest = arguments["request"]
    request.session.last_seed, began = request.settings.seed, time.monotonic()
    yield [], gr.skip(), STARTING
    with request.session.running() as stop:
        live = LiveCall(
            lambda on_step: function(**arguments | {"request": replace(request, stop=stop, on_step=on_step)})
        )
        try:
            for progress in live:
                request.on_step(progress.done, progress.total, lambda: None)
                yield gr.skip(), gr.skip(), progress.html
        except IdgenError:
            yield gr.skip(), gr.skip(), ""
            raise
        finally:
            stop.set()
    images, table = live.result
    unknown = request.backend.pipeline.usage.unknown_words(request.settings.text)
    seconds = time.monotonic() - began
    yield images, table, finished(len(images), request.settings.seed, seconds, unknown, table)


@contextmanager
def _shown_errors(sessions: Sessions) -> Iterator[None]:
    """Show our own errors in the page, without a traceback."""
    try:
        yield
    except IdgenError as error:
        raise gr.Error(_message(error, sessions), print_exception=False) from error


def _fill_in(backend: Backend, name: str, given: Iterator[Any], values: Sequence[Any]) -> Any:
    if name == "backend":
        return backend
    if name == "click":
        return next(given)
    if name == "on_step":
        return _progress(next(given))
    settings = GenerationSettings(**{s.name: next(given) for s in SETTINGS}) if name == "request" else None
    session = backend.sessions.open(next(given).session_hash)
    backend.sessions.keep(session, _texts(values))
    if settings is None:
        return session
    show = _progress(next(given))
    return GenerationRequest(backend, session, settings, threading.Event(), lambda done, total, _: show(done, total))


def _progress(progress: gr.Progress) -> Callable[[int, int], None]:
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
