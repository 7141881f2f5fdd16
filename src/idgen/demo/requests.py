"""From what Gradio calls to what our functions take: a session, settings, steps, and errors that the page shows."""

from __future__ import annotations

import functools
import html
import inspect
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import IdgenError
from .sessions import Session, Sessions
from .settings import Settings
from .studio import Step

_TYPES = {"str": str, "int": int, "float": float}


def endpoint(sessions: Sessions, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function something that Gradio can call.

    Of its parameters, `session` becomes Gradio's request, `settings` becomes the fields of `Settings` one by one,
    `step` becomes Gradio's progress bar, and `click` tells what was clicked. The others stay, in their order, with
    their names: these are what clients of the API write. The files among them belong to the session from then on. An
    error of ours is shown in the page as it is, and no trace of it is printed.

    Args:
        sessions: Of all pages.
        function: Of the session and so on.
    """
    own = list(inspect.signature(function).parameters.values())

    @functools.wraps(function)
    def call(*values: Any) -> Any:
        given = iter(values)
        try:
            arguments = {parameter.name: _read(sessions, parameter.name, given) for parameter in own}
            session = arguments.get("session")
            if isinstance(session, Session):
                sessions.keep(session, _texts(values))
            return function(**arguments)
        except IdgenError as error:
            raise gr.Error(_message(error, sessions.folder), print_exception=False) from error

    parameters = [new for parameter in own for new in _asked_for(parameter)]
    call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del call.__wrapped__
    return call


def _message(error: IdgenError, folder: Path) -> str:
    """Escaped, since Gradio shows messages as HTML and they name what was sent; and without where it lies here."""
    text = re.sub(rf"{re.escape(os.fspath(folder))}(/[0-9a-f]{{32,64}})+/", "", str(error))
    return html.escape(text, quote=False)


def _texts(values: Any) -> Iterator[str]:
    """All texts in what components give: paths are among them."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict):
        yield from _texts(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _texts(value)


def _read(sessions: Sessions, name: str, given: Any) -> Any:
    if name == "session":
        return sessions.open(next(given).session_hash)
    if name == "settings":
        return Settings(**{field.name: next(given) for field in fields(Settings)})
    if name == "step":
        return _steps(next(given))
    return next(given)


def _steps(progress: gr.Progress) -> Step:
    def show(done: int, total: int) -> None:
        progress((done, total), desc="Drawing", unit="steps")

    return show


def _asked_for(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    if parameter.name == "click":
        return [inspect.Parameter("click", kind, annotation=gr.SelectData)]
    if parameter.name == "session":
        return [inspect.Parameter("request", kind, annotation=gr.Request)]
    if parameter.name == "settings":
        return [inspect.Parameter(f.name, kind, annotation=_TYPES[str(f.type)]) for f in fields(Settings)]
    if parameter.name == "step":
        return [inspect.Parameter("progress", kind, default=gr.Progress(), annotation=Any)]
    return [inspect.Parameter(parameter.name, kind, annotation=Any)]
