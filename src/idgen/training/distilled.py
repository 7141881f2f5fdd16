"""A LoRA that lets the base model draw in few steps, for the time of a rollout only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import MissingDependencyError, TrainingError

NAME = "distilled"


class DistilledLoRA:
    """An LCM or Lightning LoRA on a pipeline's UNet, off but inside `acting`.

    Args:
        pipeline: Of diffusers; the LoRA stays on its UNet, frozen.
        name: Folder, file or hub id.

    Raises:
        TrainingError: There is no such LoRA, or it does not fit.
        MissingDependencyError: PEFT is not installed.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        try:
            from peft.tuners.tuners_utils import BaseTunerLayer
        except ImportError as error:
            raise MissingDependencyError(
                "A distilled LoRA needs PEFT: pip install 'idgen-diffusers[train]'"
            ) from error
        try:
            pipeline.load_lora_weights(name, adapter_name=NAME)
        except (OSError, ValueError, RuntimeError) as error:
            raise TrainingError(f"The LoRA '{name}' could not be loaded: {error}") from error
        pipeline.unet.requires_grad_(False)
        self._layers: list[Any] = [layer for layer in pipeline.unet.modules() if isinstance(layer, BaseTunerLayer)]
        self._scale(0.0)

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Let it act inside the `with`, and in backward passes in there."""
        self._scale(1.0)
        try:
            yield
        finally:
            self._scale(0.0)

    def _scale(self, scale: float) -> None:
        for layer in self._layers:
            layer.set_scale(NAME, scale)
