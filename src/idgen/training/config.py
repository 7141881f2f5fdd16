"""The configurations of the two stages. Fields have the names of diffusers' training scripts where those have one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ..data.people_options import PeopleOptions
from ..errors import TrainingError
from ..inputs import AdapterName, BaseName, InputPlace
from ..losses.config import LossConfig
from ..rewards.table import RewardsConfig
from .adapter_config import AdapterConfig
from .data_config import DataConfig
from .face_config import FaceConfig
from .loop_config import LoopConfig
from .methods import AlignPropConfig, DDPOConfig, GRPOConfig, MethodConfig, SwapConfig
from .optimizer_config import OptimizerConfig
from .validation_config import ValidationConfig

__all__ = [
    "AdapterConfig",
    "DataConfig",
    "DenoisingConfig",
    "LoopConfig",
    "OptimizerConfig",
    "RewardConfig",
    "ValidationConfig",
]

_BARE = tyro.conf.arg(name="")  # --max_train_steps, as in diffusers' scripts, and not --loop.max_train_steps
_Base = Annotated[
    BaseName, tyro.conf.arg(aliases=["--pretrained-model-name-or-path"])
]  # its name in diffusers' scripts


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """Stage one: train an adapter to denoise a photo of a person, given another photo of that person.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny" for the built-in model.
        train_data_dir: Shards written by `idgen prepare`.
        output_dir: Folder for the trained adapter, its checkpoints and its metrics.
        adapter: The adapter to train.
        losses: Weights and settings of the losses.
        faces: How the faces for identity losses are generated.
        data: How samples are read.
        people: Pictures of several people, with group "photo".
        optimizer: Optimizer and learning rate.
        loop: Length of the run, checkpoints and logs.
        validation: Pictures drawn during the run.
    """

    stage: ClassVar[str] = "denoise"

    base: _Base = "tiny"
    train_data_dir: InputPlace
    output_dir: Path
    adapter: Annotated[AdapterConfig, _BARE] = field(default_factory=AdapterConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    data: Annotated[DataConfig, _BARE] = field(default_factory=DataConfig)
    people: PeopleOptions = field(default_factory=PeopleOptions)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: Annotated[LoopConfig, _BARE] = field(default_factory=LoopConfig)
    validation: Annotated[ValidationConfig, _BARE] = field(default_factory=ValidationConfig)

    @property
    def terms(self) -> LossConfig:
        """What compares generated faces: the losses."""
        return self.losses


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Stage two: train an adapter further with rewards on the pictures it generates.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny" for the built-in model.
        train_data_dir: Shards written by `idgen prepare`.
        output_dir: Folder for the trained adapter, its checkpoints and its metrics.
        id_adapter: Adapter to continue from: "tiny", a folder, a file or a hub id. Without it, only a LoRA is trained.
        unet_lora_rank: Rank of a separate LoRA on the UNet; 0 for none, or for the LoRA in the folder of id_adapter.
        identity_net: Also train an IdentityNet, a ControlNet that reads face landmarks: the one in the folder of
            id_adapter, or a new one. Otherwise pictures are drawn without it.
        rewards: Weights and settings of the rewards.
        rollout: Training method, and how pictures are generated; each method has its own settings.
        data: How samples are read.
        people: Pictures of several people, with group "photo".
        optimizer: Optimizer and learning rate.
        loop: Length of the run, checkpoints and logs.
        validation: Pictures drawn during the run.
    """

    stage: ClassVar[str] = "reward"

    base: _Base = "tiny"
    train_data_dir: InputPlace
    output_dir: Path
    id_adapter: AdapterName | None = None
    unet_lora_rank: int = 0
    identity_net: bool = False
    rewards: RewardsConfig = field(default_factory=RewardsConfig)
    rollout: Annotated[MethodConfig, tyro.conf.AvoidSubcommands] = field(default_factory=AlignPropConfig)
    data: Annotated[DataConfig, _BARE] = field(default_factory=DataConfig)
    people: PeopleOptions = field(default_factory=PeopleOptions)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: Annotated[LoopConfig, _BARE] = field(default_factory=LoopConfig)
    validation: Annotated[ValidationConfig, _BARE] = field(default_factory=ValidationConfig)

    @property
    def terms(self) -> RewardsConfig:
        """What compares generated faces: the rewards."""
        return self.rewards

    def __post_init__(self) -> None:
        method, loop = self.rollout, self.loop
        if isinstance(method, SwapConfig) and self.data.group != "face":
            raise TrainingError(f"swap edits one face of a picture: group must be 'face', not '{self.data.group}'.")
        if isinstance(method, DDPOConfig | GRPOConfig) and self.optimizer.combine != "sum":
            raise TrainingError(
                f"{method.method} has one loss: optimizer.combine must be 'sum', not '{self.optimizer.combine}'."
            )
        if isinstance(method, DDPOConfig) and loop.train_batch_size < 2:
            raise TrainingError(
                f"ddpo compares the pictures of a batch: train_batch_size must be at least 2, not "
                f"{loop.train_batch_size}. With grpo it may be 1."
            )
        if isinstance(method, GRPOConfig) and loop.checkpointing_steps % method.updates:
            raise TrainingError(
                f"grpo uses the same pictures in {method.updates} updates, and checkpoints do not contain them: "
                f"checkpointing_steps must be a multiple of {method.updates}, not {loop.checkpointing_steps}."
            )
