"""The configuration of a training run. Fields have the names of diffusers' training scripts where those have one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import tyro

from ..adapter.placement import Placement
from ..adapter.projections import ProjectionConfig
from ..data.far import Far
from ..data.people_options import PeopleOptions
from ..data.poses import Poses
from ..errors import TrainingError
from ..inputs import AdapterName, Amounts, BaseName, EncoderSpec, InputPlace
from ..losses.config import LossConfig
from ..rewards.table import RewardsConfig
from .face_config import FaceConfig
from .methods import AlignPropConfig, DDPOConfig, GRPOConfig, MethodConfig, SwapConfig
from .projection_flag import check_trainable, projection_flag

Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
MAX_SEED = 2**32 - 1

_BARE = tyro.conf.arg(name="")  # --max_train_steps, as in diffusers' scripts, and not --loop.max_train_steps
_Base = Annotated[
    BaseName, tyro.conf.arg(aliases=["--pretrained-model-name-or-path"])
]  # its name in diffusers' scripts


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """The adapter to train, and the modules to train with it.

    Attributes:
        id_adapter: Adapter to continue from: a folder, a file or a hub id. Its own configuration then replaces
            projection, num_tokens, num_words, normalised and placement.
        frozen: Do not train the adapter of id_adapter, only the IdentityNet or the separate LoRA.
        projection: How an identity embedding becomes tokens: the type of the projection, and sizes that differ from
            its defaults, as in "resampler depth=2".
        num_tokens: Identity tokens per person.
        placement: Where the identity acts: "parallel" to the attention to the text, or "sequential", in gated layers
            before it that start without an effect.
        face_only: Train the identity to act only in the box around the target's face, as with id_masks.
        num_words: Pseudo-words per person, which replace `<id>` in prompts; 0 for none.
        normalised: Scale identity embeddings to unit length.
        random_fusion: Weight text against identity at random in each sample, as PhotoVerse does.
        lora_rank: Rank of the adapter's own LoRA, which is stored in the adapter's file and acts only with an
            identity, as in IP-Adapter FaceID; 0 for none. If the adapter of id_adapter has no LoRA, one is added.
        unet_lora_rank: Rank of a separate LoRA on the UNet, which is stored in a file of its own for
            load_lora_weights and acts with and without an identity; 0 for none.
        identity_net: Also train an IdentityNet, a ControlNet that reads face landmarks: the one in the folder of
            id_adapter, or a new one. Otherwise the adapter is trained without it.
    """

    id_adapter: AdapterName | None = None
    frozen: bool = False
    projection: Annotated[ProjectionConfig, projection_flag()] = "mlp"
    num_tokens: int = 4
    placement: Placement = "parallel"
    face_only: bool = False
    num_words: int = 0
    normalised: bool = True
    random_fusion: bool = False
    lora_rank: int = 0
    unet_lora_rank: int = 0
    identity_net: bool = False

    def __post_init__(self) -> None:
        check_trainable(self.projection)
        if self.random_fusion and self.placement != "parallel":
            raise TrainingError("random_fusion weights text against identity: it needs placement 'parallel'.")
        if self.frozen and self.id_adapter is None:
            raise TrainingError("frozen needs id_adapter, the adapter that is not trained.")
        if self.frozen and not (self.unet_lora_rank or self.identity_net):
            raise TrainingError("Nothing would be trained: frozen needs identity_net or unet_lora_rank.")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, the learning rate schedule and the weight average.

    Attributes:
        name: Optimizer: "adamw", "adamw8bit" (needs bitsandbytes) or "prodigy" (needs prodigyopt; use
            learning_rate 1).
        learning_rate: Learning rate after warm-up.
        weight_decay: Weight decay of the optimizer.
        lr_scheduler: Learning rate schedule, by its name in diffusers.
        lr_warmup_steps: Warm-up steps of the learning rate.
        max_grad_norm: Maximum norm for gradient clipping.
        explosion: Skip updates whose gradient norm exceeds this many times the running mean; 0 to never skip.
        ema_decay: Decay of the exponential moving average of the weights, which is then validated and saved; 0 for
            none.
        combine: How the gradients of the identity losses (or rewards) and of all other losses are combined: "sum";
            "pcgrad", which removes from each what opposes the other; or "mgda", the weights that reduce both. The
            last two cost one more backward pass.
    """

    name: Literal["adamw", "adamw8bit", "prodigy"] = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    lr_scheduler: Schedule = "constant_with_warmup"
    lr_warmup_steps: int = 100
    max_grad_norm: float = 1.0
    explosion: float = 100.0
    ema_decay: float = 0.0
    combine: Literal["sum", "pcgrad", "mgda"] = "sum"

    def __post_init__(self) -> None:
        if self.lr_scheduler not in get_args(Schedule):
            raise TrainingError(
                f"lr_scheduler must be one of {', '.join(get_args(Schedule))}, not '{self.lr_scheduler}'."
            )


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The length of the run, its batches, checkpoints and logs.

    Attributes:
        max_train_steps: Total number of weight updates.
        train_batch_size: Samples per process and forward pass.
        gradient_accumulation_steps: Forward and backward passes per weight update.
        gradient_checkpointing: Recompute the UNet's activations in the backward pass: less memory, more time.
        mixed_precision: Precision of the frozen networks: "no", "fp16" or "bf16"; by default what accelerate is
            configured for. Trained weights stay in float32.
        checkpointing_steps: Save a checkpoint, and validate, every this many updates.
        checkpoints_total_limit: Number of checkpoints to keep; older ones are deleted.
        resume_from_checkpoint: Checkpoint to resume from: a folder, or "latest" for the newest undamaged checkpoint
            in output_dir (a new run if there is none). Without it, an output_dir that already holds a run is refused.
        max_bad_steps: Stop with an error after more than this many skipped updates in a row. An update is skipped if
            its gradient is not finite or too large (see optimizer.explosion).
        report_to: Tracker: "tensorboard", "wandb" (sends metrics and pictures to its service) or "trackio".
            metrics.jsonl is always written.
        seed: Random seed of the initial weights, the noise and the order of the samples, 0 to 4294967295.
        dry_run: Print the number of parameters, the peak memory and the expected duration, and exit.
    """

    max_train_steps: int = 10_000
    train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    max_bad_steps: int = 20
    report_to: Literal["tensorboard", "wandb", "trackio"] | None = None
    seed: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        passes = ("train_batch_size", "gradient_accumulation_steps")
        for name in ("max_train_steps", *passes, "checkpointing_steps", "checkpoints_total_limit"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise TrainingError(f"seed must lie between 0 and {MAX_SEED}, not {self.seed}.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How samples are read from the shards.

    Attributes:
        encoder: Face encoder whose embeddings the adapter reads; docs/encoders.md describes them. Defaults to that of
            the shards; embeddings of others are cached by `idgen prepare --encoder FIRST OTHER`.
        resolution: Side in pixels of a square with as many pixels as a training picture; pictures keep their aspect
            ratio. The built-in model's pictures are aligned faces of 64 px.
        paired_ratio: Share of samples whose reference is another photo of the person than the target.
        curriculum_steps: Updates over which that share rises from 0 to paired_ratio, so that the adapter learns from
            the same photo first (FaceChain-FACT); 0 for paired_ratio from the start.
        references: Reference photos per sample.
        far: Take references that are far from the target in pose, in time (column `date`) or in source (column
            `origin`), against copies of the reference; random ones if it is empty.
        drop_text: Probability of dropping only the prompt.
        drop_identity: Probability of dropping only the identity embedding.
        drop_both: Probability of dropping both the prompt and the identity embedding.
        component_dropout: Probability of setting each component of an identity embedding to zero.
        moves: Move input embeddings at random along directions of attributes, by at most so many steps, as in
            smile=1 age=0.5: the adapter learns to leave these attributes to the prompt. See docs/attributes.md.
        flip: Probability of mirroring a target; 0 where captions say left or right.
        poses: Random poses of aligned faces, for an IdentityNet.
        dataloader_num_workers: Processes that load data; 0 to load in the main process.
        group: What a sample shows: "face", one face of a photo; or "photo", a photo with all its people, or a
            composite of several photos (see people).
    """

    encoder: EncoderSpec | None = None
    resolution: int = 512
    paired_ratio: float = 1.0
    curriculum_steps: int = 0
    references: int = 1
    far: Far = ""
    drop_text: float = 0.05
    drop_identity: float = 0.05
    drop_both: float = 0.05
    component_dropout: float = 0.0
    moves: Amounts = field(default_factory=dict)
    flip: float = 0.5
    poses: Poses = field(default_factory=Poses)
    dataloader_num_workers: int = 0
    group: Literal["face", "photo"] = "face"


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Pictures of people from the validation split, drawn and measured at every checkpoint.

    Attributes:
        validation_people: Number of people of the validation split to draw; 0 for no validation.
        validation_prompts: Prompts to draw each person with. They may hold `<id>` if the adapter has pseudo-words.
        eval_encoder: Another face encoder for validation, never used in training; docs/encoders.md describes them. The
            run stops when its similarity falls while that of the training's encoder rises.
    """

    validation_people: int = 4
    validation_prompts: tuple[str, ...] = ("a photo of a person", "an oil painting of a person")
    eval_encoder: Annotated[EncoderSpec | None, tyro.conf.arg(aliases=["--judge"])] = None


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
        id_adapter: Adapter to continue from: a folder, a file or a hub id. Without it, only a LoRA is trained.
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
