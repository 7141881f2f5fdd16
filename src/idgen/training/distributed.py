"""The processes of a run: its accelerator, work for the main process, signals, and weights that FSDP has sharded."""

from __future__ import annotations

import signal
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import IdgenError, TrainingError
from .loop_config import LoopConfig

PRECISIONS = ("no", "fp16", "bf16")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def make_accelerator(loop: LoopConfig, output_dir: Path) -> Accelerator:
    """Make the accelerator that a `Loop` with this configuration expects.

    Args:
        loop: Gives the precision, the gradient accumulation and the tracker.
        output_dir: Folder that trackers write to.

    Raises:
        TrainingError: This machine does not support the precision, or accelerate is configured for another number of
            accumulation steps.
    """
    try:
        accelerator = Accelerator(
            mixed_precision=loop.mixed_precision,
            gradient_accumulation_steps=loop.gradient_accumulation_steps,
            log_with=loop.report_to,
            project_dir=output_dir,
        )
    except ValueError as error:
        raise TrainingError(f"accelerate cannot start with mixed_precision={loop.mixed_precision}: {error}") from error
    precision = accelerator.mixed_precision
    if precision not in PRECISIONS:
        raise TrainingError(f"mixed_precision must be one of {', '.join(PRECISIONS)}, not '{precision}'.")
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise TrainingError("mixed_precision=fp16 needs a GPU, and there is none; use 'no' or 'bf16' on a CPU.")
    check_accumulation(accelerator, loop)
    return accelerator


def check_accumulation(accelerator: Accelerator, loop: LoopConfig) -> None:
    """Check that the accelerator divides the loss by the number of accumulation steps of the run.

    Raises:
        TrainingError: The two numbers differ.
    """
    theirs, ours = accelerator.gradient_accumulation_steps, loop.gradient_accumulation_steps
    if theirs != ours:
        raise TrainingError(
            f"The run has gradient_accumulation_steps={ours}, but accelerate is configured for {theirs}: set it to "
            f"{ours} there too, or create the accelerator with make_accelerator."
        )


def on_main(work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
    """Call a function on the main process. All processes return its result, or raise its `IdgenError`."""
    state = PartialState()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = work(*arguments, **named)
        except IdgenError as error:
            outcome[1] = error
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


class StopSignal:
    """A request to stop after the current update, which all processes see after the same update.

    Attributes:
        requested: Whether this process was asked to stop.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.requested = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Within the `with`, SIGTERM and Ctrl-C request a stop; a second signal has its usual effect."""

        def stop(number: int, _: FrameType | None) -> None:
            self.requested = True
            signal.signal(number, before[signal.Signals(number)])

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def seen_by_any(self) -> bool:
        """Whether any process was asked to stop. All processes call it together."""
        if self.accelerator.num_processes == 1:
            return self.requested
        flag = torch.tensor(int(self.requested), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum") > 0)  # pyright: ignore[reportOperatorIssue]


# -- weights that FSDP has sharded; all processes call these functions together, other tensors pass unchanged


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a tensor on each process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def split_like(whole: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Shard and place a whole tensor as another one is."""
    if isinstance(part, DTensor):
        return distribute_tensor(whole.to(part.device), part.device_mesh, part.placements)
    return whole.to(part.device)


@contextmanager
def whole_parameters(module: nn.Module, write: bool = False) -> Iterator[None]:
    """Replace sharded parameters by whole ones within the `with`.

    Args:
        module: Module whose parameters may be sharded.
        write: Whether to keep changes made within the `with`.
    """
    split = [
        (owner, name, part)
        for owner in module.modules()
        for name, part in owner._parameters.items()
        if isinstance(part, DTensor)
    ]
    hooks = {owner: owner._load_state_dict_post_hooks for owner, _, _ in split}
    for owner in hooks:  # FSDP's hooks expect sharded weights after load_state_dict
        owner._load_state_dict_post_hooks = OrderedDict()
    for owner, name, part in split:
        owner._parameters[name] = nn.Parameter(whole_tensor(part.detach()), part.requires_grad)
    try:
        yield
    finally:
        for owner, name, part in split:
            now = owner._parameters[name]
            if write and now is not None:
                with torch.no_grad():
                    part.copy_(split_like(now.detach(), part))
            owner._parameters[name] = part
        for owner, before in hooks.items():
            owner._load_state_dict_post_hooks = before
