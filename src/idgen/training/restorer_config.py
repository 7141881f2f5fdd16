"""The configuration of `idgen train restorer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from ..errors import TrainingError
from ..inputs import AdapterName, InputPlace
from .config import _BARE, _Base
from .loop_config import LoopConfig
from .optimizer_config import OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class RestorerConfig:
    """Train a ControlNet that restores damaged faces, and the curve of the identity scale.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny" for the built-in model.
        train_data_dir: Shards written by `idgen prepare`.
        output_dir: Folder for the trained restorer, its checkpoints and its metrics.
        resolution: Side in pixels of a square with as many pixels as a training picture.
        drop_text: Probability of dropping the prompt.
        id_adapter: Identity adapter that the curve is fitted with; the small model brings its own.
        fit_people: People of the training split that the curve is fitted on after training; 0 to keep the curve.
        optimizer: Optimizer and learning rate.
        loop: Length of the run, checkpoints and logs.
    """

    stage: ClassVar[str] = "restorer"

    base: _Base = "tiny"
    train_data_dir: InputPlace
    output_dir: Path
    resolution: int = 512
    drop_text: float = 0.3
    id_adapter: AdapterName | None = None
    fit_people: int = 4
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: Annotated[LoopConfig, _BARE] = field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        if self.fit_people < 0:
            raise TrainingError(f"fit_people must not be negative, got {self.fit_people}.")
        if self.fit_people and self.base != "tiny" and self.id_adapter is None:
            raise TrainingError("The curve is fitted with an adapter: give id_adapter, or fit_people=0.")
