"""What the configurations of all stages have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from ..losses.config import LossConfig
    from ..rewards.table import RewardsConfig
    from .data_config import DataConfig
    from .loop_config import LoopConfig
    from .optimizer_config import OptimizerConfig
    from .validation_config import ValidationConfig


class RunConfig(Protocol):
    """The configuration of a run."""

    stage: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def base(self) -> str: ...

    @property
    def output_dir(self) -> Path: ...

    @property
    def loop(self) -> LoopConfig: ...

    @property
    def optimizer(self) -> OptimizerConfig: ...


class ShardConfig(RunConfig, Protocol):
    """The configuration of a run that reads shards."""

    @property
    def train_data_dir(self) -> str: ...

    @property
    def data(self) -> DataConfig: ...

    @property
    def validation(self) -> ValidationConfig: ...

    @property
    def terms(self) -> LossConfig | RewardsConfig | None:
        """What compares generated faces: the losses or the rewards, if any."""
        ...
