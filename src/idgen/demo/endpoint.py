"""`endpoint`: our functions as Gradio calls them."""

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
from .sessions import Sessions

KIND = Parameter.POSITIONAL_OR_KEYWORD

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
