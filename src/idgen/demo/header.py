"""The head of the page: what it is for, and which model is running."""

from __future__ import annotations

import html

from .backend import Backend


def header(backend: Backend) -> str:
    """HTML with the title, the model and what it can do."""
    pipeline = backend.pipeline
    base = html.escape(backend.base or type(pipeline.pipe).__name__)
    model = "The built-in model" if backend.base == "tiny" else base
    what = f"<strong>{model}</strong> is running: {pipeline.native_size} × {pipeline.native_size} px"
    what += ", one face per image." if pipeline.draws_one_face else f", with {_adapters(backend)}."
    words = pipeline.usage.words
    details = ""
    if words:
        what += " It is made for trying things out: the images are small and blurred."
        details = (
            f"<details><summary>It knows {len(words)} words</summary>"
            f"<p>{', '.join(html.escape(word) for word in words)}. It ignores all others.</p></details>"
        )
    return (
        "<h1>idgen</h1><p>Generate images of a person from one photo. "
        f"Nothing is kept after this page is closed.</p><p>{what}</p>{details}"
    )


def _adapters(backend: Backend) -> str:
    names = [
        f"{html.escape(name)} (reads {html.escape(adapter.config['encoder'])})"
        for name, adapter in backend.pipeline.adapters.items()
    ]
    return f"the {'adapter' if len(names) == 1 else 'adapters'} {', '.join(names)}"
