"""The processes of `accelerate launch`."""

from __future__ import annotations

import atexit

from accelerate import PartialState

from ..vae import fastest_device


def processes() -> PartialState:
    """The state of all processes of `accelerate launch`, or of this one alone.

    The process group is destroyed at exit: otherwise its threads can abort the process.
    """
    state = PartialState(cpu=fastest_device().type == "cpu")  # otherwise each process on CPUs would be alone
    atexit.register(state.destroy_process_group)
    return state


def device_of_process(device: str | None) -> str | None:
    """The device that was asked for, or that of this process of `accelerate launch`; None for the default."""
    state = processes()
    return device or (str(state.device) if state.num_processes > 1 else None)
