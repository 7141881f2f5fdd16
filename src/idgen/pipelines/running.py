"""Which calls are running, so that calls on shared networks do not disturb each other.

diffusers keeps the state of a call on the pipeline, on its scheduler and, for perturbed-attention guidance, on the
UNet.
Copies of a pipeline and what `from_pipe` makes share the last two.
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

from ..adapter import is_hooked, lock_of
from ..errors import AdapterError


@dataclass(frozen=True, eq=False)
class _Call:
    pipeline: Any
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
def running(pipeline: Any) -> Iterator[None]:
    """Register a call on a UNet with identity adapters; calls on other UNets are left as they are.

    A call whose scheduler is in use gets one of its own. A call of the same pipeline inside a callback leaves the
    pipeline as it was.

    Raises:
        AdapterError: The pipeline is drawing in another thread, or perturbed-attention guidance would meet another
            call on the same UNet.
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
            pipeline.scheduler = type(call.scheduler).from_config(call.scheduler.config)
        _running.append(call)
    try:
        yield
    finally:
        with _registry:
            if is_taken:
                pipeline.scheduler = call.scheduler
            vars(pipeline).update({name: value for name, value in before.items() if "_id_" not in name})
            _running.remove(call)


def encoding_alone(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Let a pipeline class's `encode_prompt` take its tokenizer's lock: tokenizers keep padding as state."""

    @functools.wraps(stock)
    def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
        with lock_of(self.tokenizer if getattr(self, "tokenizer", None) is not None else self):
            return stock(self, *args, **kwargs)

    marked: Any = encode_prompt
    marked.is_guarded = True
    return marked


def _refuse(call: _Call) -> None:
    """Raise for a call that diffusers' own state on the pipeline or the UNet makes impossible now."""
    for other in _running:
        if other.pipeline is call.pipeline and other.thread != call.thread and call.pipeline._loaded_adapters:
            raise AdapterError(
                "The pipeline is drawing in another thread. Draw with a copy, which shares its networks: "
                "copy.copy(pipe)(…)."
            )
        if other.unet is call.unet and (call.changes_processors or other.changes_processors):
            raise AdapterError(
                "A pipeline with perturbed-attention guidance changes the UNet's attention processors while it draws, "
                "so no other call can run on the same UNet. Wait for the end of the other call."
            )
