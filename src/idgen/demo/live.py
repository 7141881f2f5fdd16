"""Progress of a request while it runs: the steps, the time left, and a preview."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, TypeVar

from PIL import Image

T = TypeVar("T")

OnStep = Callable[[int, int, Callable[[], "Image.Image | None"]], None]
"""Called after each step with the number of finished steps, the number of all steps, and a function that previews."""

PREVIEW_COST = 0.1
"""Maximum share of the time that is spent on previews."""

MIN_SECONDS = 0.2
"""Minimum seconds between two messages to the page."""


@dataclass(frozen=True)
class Progress:
    """State of a request.

    Attributes:
        done: Finished steps.
        total: All steps.
        seconds_left: Estimated seconds to the end; None after the first step, which takes longer than the others.
        preview: The newest preview as a JPEG file, or None.
    """

    done: int
    total: int
    seconds_left: float | None = None
    preview: bytes | None = None

    @property
    def text(self) -> str:
        """Such as "Step 7 of 25 · about 3 s left"."""
        left = "" if self.seconds_left is None else f" · about {duration(self.seconds_left)} left"
        return f"Step {self.done} of {self.total}{left}"

    @property
    def html(self) -> str:
        """The preview, a progress bar and the text."""
        image = ""
        if self.preview is not None:
            source = base64.b64encode(self.preview).decode()
            image = f'<img src="data:image/jpeg;base64,{source}" alt="Preview of step {self.done}">'
        bar = f'<progress max="{self.total}" value="{self.done}" aria-label="Steps">{self.done}</progress>'
        return f'<div class="live">{image}{bar}<p>{self.text}</p></div>'


def duration(seconds: float) -> str:
    """Such as "3 s" or "2 min"."""
    return f"{max(round(seconds), 1)} s" if seconds < 90 else f"{round(seconds / 60)} min"


class LiveCall(Generic[T]):
    """A call in a thread of its own; iterating yields its progress, and `result` is what it returned.

    Args:
        function: Called with `on_step`.
    """

    def __init__(self, function: Callable[[OnStep], T]) -> None:
        self.function = function
        self._news: SimpleQueue[Progress | None] = SimpleQueue()
        self._began = self._last = 0.0
        self._preview: bytes | None = None
        self._preview_from = 0.0

    def __iter__(self) -> Iterator[Progress]:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(self.function, self._on_step)
            future.add_done_callback(lambda _: self._news.put(None))
            while (progress := self._news.get()) is not None:
                yield progress
        self.result = future.result()

    def _on_step(self, done: int, total: int, preview: Callable[[], Image.Image | None]) -> None:
        now = time.monotonic()
        self._began = self._began or now
        if done > 1 and now - self._last < MIN_SECONDS:
            return
        left = None if done < 2 else (now - self._began) / (done - 1) * (total - done)
        if now >= self._preview_from and done < total:
            image = preview()
            self._preview = None if image is None else _jpeg(image)
            self._preview_from = time.monotonic() + (time.monotonic() - now) / PREVIEW_COST
        self._last = time.monotonic()
        self._news.put(Progress(done, total, left, self._preview))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()
