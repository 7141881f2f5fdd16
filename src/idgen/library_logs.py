"""Silences the messages and progress bars of diffusers and transformers while a model is opened."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Show errors of diffusers and transformers only, and no progress bars; afterwards all is as it was.

    Their packages import each other's parts with messages about optional packages, so the imports belong inside.
    """
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    levels = [(library, library.get_verbosity()) for library in (diffusers, transformers)]
    bars = [(library, library.is_progress_bar_enabled()) for library in (diffusers, transformers)]
    for library, _ in levels:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # about arguments that both versions of diffusers accept
            yield
    finally:
        for library, level in levels:
            library.set_verbosity(level)
        for library, enabled in bars:
            if enabled:
                library.enable_progress_bar()
