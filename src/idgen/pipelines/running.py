"""Registers running calls, so that calls on shared networks do not disturb each other.

diffusers keeps the state of a call on the pipeline, on its scheduler and, for perturbed-attention guidance, on the
UNet. Copies of a pipeline, and pipelines made by `from_pipe`, share the last two.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..adapter.hooks import is_hooked
from ..adapter.state import lock_of
from ..errors import AdapterError
from .supported import Pipeline


@dataclass(frozen=True, eq=False)
class _Call:
    pipeline: Pipeline
    unet: nn.Module
    scheduler: Any
    thread: int

    @property
    def changes_processors(self) -> bool:
        """Whether the pipeline replaces the UNet's attention processors while it runs."""
        return hasattr(type(self.pipeline), "do_perturbed_attention_guidance")


_running: list[_Call] = []
_registry = threading.Lock()


@contextmanager
def running(pipeline: Pipeline) -> Iterator[None]:
    """Register a call on a UNet with identity adapters inside the `with`; other calls are not changed.

    If another call uses the pipeline's scheduler, the call gets a new scheduler. After a call inside a callback, the
    state of the outer call of the same pipeline is restored.

    Raises:
        AdapterError: The pipeline is running in another thread, or a call with perturbed-attention guidance and
            another call would run on the same UNet.
    """
    unet = getattr(pipeline, "unet", None)
    if unet is None or not is_hooked(unwrap_module(unet)):
        yield
        return
    with _registry:
        call = _Call(pipeline, unwrap_module(unet), pipeline.scheduler, threading.get_ident())
        _refuse(call)
        is_taken = any(other.scheduler is call.scheduler for other in _running)
        is_nested = any(other.pipeline is pipeline for other in _running)
        before = {name: value for name, value in vars(pipeline).items() if name.startswith("_") and is_nested}
        if is_taken:
            pipeline.scheduler = type(call.scheduler).from_config(call.scheduler.config)  # pyright: ignore
        _running.append(call)
    try:
        yield
    finally:
        with _registry:
            if is_taken:
                pipeline.scheduler = call.scheduler  # pyright: ignore
            vars(pipeline).update({name: value for name, value in before.items() if "_id_" not in name})
            _running.remove(call)


def lock_tokenizer(stock: Callable[..., Any]) -> Callable[..., Any]:
    """A pipeline class's `encode_prompt` that takes its tokenizer's lock: tokenizers keep padding as state."""

    @functools.wraps(stock)
    def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
        with lock_of(self.tokenizer if getattr(self, "tokenizer", None) is not None else self):
            return stock(self, *args, **kwargs)

    return encode_prompt


def _refuse(call: _Call) -> None:
    """Refuse a call that would share diffusers' own state on the pipeline or the UNet with a running call."""
    for other in _running:
        if other.pipeline is call.pipeline and other.thread != call.thread and call.pipeline._loaded_adapters:
            raise AdapterError(
                "The pipeline is running in another thread. Use a copy, which shares its networks: copy.copy(pipe)(…)."
            )
        if other.unet is call.unet and (call.changes_processors or other.changes_processors):
            raise AdapterError(
                "A pipeline with perturbed-attention guidance changes the UNet's attention processors while it runs, "
                "so no other call can run on the same UNet. Wait until the other call has finished."
            )
