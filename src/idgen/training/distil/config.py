"""The configuration of `idgen train distil`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ...errors import TrainingError
from ...inputs import AdapterName, BaseName, InputPlace
from ..data_config import DataConfig
from ..loop_config import LoopConfig
from ..optimizer_config import OptimizerConfig
from ..validation_config import ValidationConfig

_BARE = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig:
    """The consistency loss.

    Attributes:
        method: "distillation" follows the guided base model (LCM-LoRA). "training" needs no teacher: both noisy
            pictures are made of the same photo (improved consistency training). It costs a third, and learns no
            guidance.
        guidance_scale: Guidance scale of the teacher; by default what the base model recommends, or 5.
        steps: Steps that the noise schedule is divided into (LCM: 50).
        doubling: Start with `first_steps`, and double them at equal intervals up to `steps` (improved consistency
            training).
        first_steps: Steps at the start of a doubling schedule.
        timesteps: Distribution of the timesteps: uniform, or lognormal in the noise level σ (improved consistency
            training).
        lognormal_mean: Mean of log σ of lognormal timesteps.
        lognormal_std: Standard deviation of log σ of lognormal timesteps.
        weighted: Weight a pair of timesteps by 1/(σ of the noisier one − σ of the other) (improved consistency
            training).
        huber: c of the pseudo-Huber distance; 0 for the squared error.

    Raises:
        TrainingError: A value is out of range.
    """

    method: Literal["distillation", "training"] = "distillation"
    guidance_scale: float | None = None
    steps: int = 50
    doubling: bool = False
    first_steps: int = 10
    timesteps: Literal["uniform", "lognormal"] = "uniform"
    lognormal_mean: float = -1.1
    lognormal_std: float = 2.0
    weighted: bool = False
    huber: float = 0.00054

    def __post_init__(self) -> None:
        for name in ("steps", "first_steps"):
            if getattr(self, name) < 1:
                raise TrainingError(f"consistency.{name} must be at least 1, not {getattr(self, name)}.")
        if self.huber < 0 or self.lognormal_std <= 0:
            raise TrainingError(
                f"consistency.huber must be >= 0 and lognormal_std > 0, not {self.huber} and {self.lognormal_std}."
            )


@dataclass(frozen=True, kw_only=True)
class DistilConfig:
    """Distil a base model with its identity adapter into a LoRA that draws in four steps.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny" for the built-in model.
        train_data_dir: Shards written by `idgen prepare`.
        output_dir: Folder for the LoRA, its checkpoints and its metrics.
        id_adapter: Identity adapter that is active: a folder, a file or a hub id. The built-in model has its own;
            without one, a LoRA for the base model alone is trained.
        lora_rank: Rank of the LoRA.
        consistency: The consistency loss.
        draw_steps: Steps of the pictures that are drawn during the run, and that the folder recommends.
        data: How samples are read.
        optimizer: Optimizer and learning rate.
        loop: Length of the run, checkpoints and logs.
        validation: Pictures drawn during the run.
    """

    stage: ClassVar[str] = "distil"

    base: Annotated[BaseName, tyro.conf.arg(aliases=["--pretrained-model-name-or-path"])] = "tiny"
    train_data_dir: InputPlace
    output_dir: Path
    id_adapter: AdapterName | None = None
    lora_rank: int = 64
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    draw_steps: int = 4
    data: Annotated[DataConfig, _BARE] = field(default_factory=lambda: DataConfig(drop_text=0.0, drop_both=0.0))
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(weight_decay=0.0))
    loop: Annotated[LoopConfig, _BARE] = field(default_factory=lambda: LoopConfig(max_train_steps=1000))
    validation: Annotated[ValidationConfig, _BARE] = field(default_factory=ValidationConfig)

    @property
    def terms(self) -> None:
        """What compares generated faces: nothing does."""

    def __post_init__(self) -> None:
        for name in ("lora_rank", "draw_steps"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, not {getattr(self, name)}.")
