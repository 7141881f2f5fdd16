"""What can be set in a training run. Fields carry the names of diffusers' training scripts where those have one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from ..errors import TrainingError
from .methods import AlignPropConfig, DDPOConfig, GRPOConfig, MethodConfig
from .objectives import FaceConfig, LossConfig

Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
MAX_SEED = 2**32 - 1

_BARE = tyro.conf.arg(name="")  # --max_train_steps, as in diffusers' scripts, and not --loop.max_train_steps


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A new adapter, or one to go on with.

    Attributes:
        id_adapter: Folder, file or hub id of an adapter to go on with. Its own configuration replaces these settings,
            except for `lora_rank`, `unet_lora_rank`, `identity_net`, `random_fusion` and `frozen`.
        frozen: Whether the adapter of `id_adapter` is kept as it is, so that only what is beside it is trained.
        encoder: Face encoder whose embeddings it reads.
        projection: "mlp" (4 tokens as FaceID) or "resampler" (16 as InstantID).
        num_tokens: Tokens for one identity.
        num_words: Pseudo-words for `<id>` in prompts; 0 for none.
        normalised: Whether embeddings are scaled to unit length.
        random_fusion: Whether text and identity are weighed at random, as in PhotoVerse.
        lora_rank: Rank of the adapter's own LoRA on the UNet's attention, stored in its file and active only with an
            identity (IP-Adapter-FaceID); 0 for none. An adapter of `id_adapter` that has no LoRA gets one.
        unet_lora_rank: Rank of a separate LoRA on the UNet, which `load_lora_weights` loads; 0 for none.
        identity_net: Whether to train an IdentityNet, which reads landmarks, beside the adapter.
    """

    id_adapter: str | None = None
    frozen: bool = False
    encoder: str = "dlib-resnet-v1"
    projection: Literal["mlp", "resampler"] = "mlp"
    num_tokens: int = 4
    num_words: int = 0
    normalised: bool = True
    random_fusion: bool = False
    lora_rank: int = 0
    unet_lora_rank: int = 0
    identity_net: bool = False

    def __post_init__(self) -> None:
        if self.frozen and self.id_adapter is None:
            raise TrainingError("frozen keeps an adapter as it is: name it with id_adapter.")
        if self.frozen and not (self.unet_lora_rank or self.identity_net):
            raise TrainingError("Nothing would be trained: frozen needs identity_net or unet_lora_rank.")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How the adapter learns.

    Attributes:
        name: "adamw", "adamw8bit" (needs bitsandbytes) or "prodigy" (needs prodigyopt; use learning_rate 1).
        learning_rate: At its height.
        weight_decay: Of AdamW.
        lr_scheduler: Schedule of the learning rate, as diffusers names it.
        lr_warmup_steps: Steps until the height.
        max_grad_norm: Gradients are shortened to this length …
        explosion: … and not used at all when so many times longer than those before them; 0 for no such limit.
        ema_decay: Of the average that is saved and validated; 0 for none.
    """

    name: Literal["adamw", "adamw8bit", "prodigy"] = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    lr_scheduler: Schedule = "constant_with_warmup"
    lr_warmup_steps: int = 100
    max_grad_norm: float = 1.0
    explosion: float = 100.0
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.lr_scheduler not in get_args(Schedule):
            raise TrainingError(f"lr_scheduler is one of {', '.join(get_args(Schedule))}, not '{self.lr_scheduler}'.")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how often, where to.

    Attributes:
        max_train_steps: Updates of the weights.
        train_batch_size: Samples of one process in one pass.
        gradient_accumulation_steps: Passes for one update.
        gradient_checkpointing: Whether the UNet's layers are run again in the backward pass instead of kept.
        mixed_precision: "no", "fp16" or "bf16"; what accelerate is configured for if not given. The adapter itself
            stays in float32.
        checkpointing_steps: A checkpoint every so many updates.
        checkpoints_total_limit: How many are kept.
        resume_from_checkpoint: "latest", the newest in output_dir that is whole (a new run if there is none yet), or
            the folder of one. Without it, an output_dir that holds a run already is refused.
        max_bad_steps: So many updates in a row whose loss is not finite, or explodes, end the run; single ones are
            skipped.
        report_to: "tensorboard", "wandb" (which sends numbers and pictures to its service) or "trackio";
            metrics.jsonl is written always.
        seed: Of weights, noise and the order of the samples, 0 to 4294967295.
        dry_run: Say what the run needs, time a few steps, and end.
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
    """What is read of the shards.

    Attributes:
        resolution: Pictures have about its square in pixels; the small model's are faces of 64 px.
        paired_ratio: Share of the samples that know the person from another photo.
        references: Photos that a sample knows the person from.
        drop_text: Share of the samples without a prompt …
        drop_identity: … without an identity …
        drop_both: … and without either.
        component_dropout: Chance of each number of an embedding to be zero.
        dataloader_num_workers: Processes that read beside the training.
    """

    resolution: int = 512
    paired_ratio: float = 1.0
    references: int = 1
    drop_text: float = 0.05
    drop_identity: float = 0.05
    drop_both: float = 0.05
    component_dropout: float = 0.0
    dataloader_num_workers: int = 0


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Pictures at every checkpoint, of people whom the training does not see.

    Attributes:
        validation_people: How many of the validation split are drawn; 0 for no pictures.
        validation_prompts: What the pictures show; `<id>` where the adapter has words.
        judge: A second face encoder that the training never uses ("insightface/PACK", or ONNX as in `idgen evaluate
            --encoder`): the run ends when its similarity falls while that of the adapter's encoder rises.
    """

    validation_people: int = 4
    validation_prompts: tuple[str, ...] = ("a photo of a person", "an oil painting of a person")
    judge: str | None = None


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """Stage one: train an adapter by denoising photos of people, each drawn from another photo of them.

    Attributes:
        pretrained_model_name_or_path: Stable Diffusion model: a folder, a hub id, or "tiny".
        train_data_dir: Shards that `idgen prepare` has written.
        output_dir: Where the adapter, its checkpoints and metrics go.
        adapter: What is trained.
        losses: What each loss counts.
        faces: How the faces that losses read are made.
        data: What is read.
        optimizer: How it learns.
        loop: How long and how often.
        validation: Pictures while it goes on.
    """

    pretrained_model_name_or_path: str = "tiny"
    train_data_dir: str
    output_dir: Path
    adapter: Annotated[AdapterConfig, _BARE] = field(default_factory=AdapterConfig)
    losses: LossConfig = field(default_factory=LossConfig)
    faces: FaceConfig = field(default_factory=FaceConfig)
    data: Annotated[DataConfig, _BARE] = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: Annotated[LoopConfig, _BARE] = field(default_factory=LoopConfig)
    validation: Annotated[ValidationConfig, _BARE] = field(default_factory=ValidationConfig)


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Stage two: go on with an adapter, by what a face encoder says of the pictures that it draws.

    Attributes:
        pretrained_model_name_or_path: Stable Diffusion model: a folder, a hub id, or "tiny".
        train_data_dir: Shards that `idgen prepare` has written.
        output_dir: Where the adapter, its checkpoints and metrics go.
        id_adapter: What stage one has made: a folder, a file or a hub id. Without it, a LoRA is trained alone.
        unet_lora_rank: Rank of a separate LoRA on the UNet; 0 for none, or for the one in the folder of `id_adapter`.
        rollout: How pictures are drawn and learned from, and what counts; each method has settings of its own.
        data: What is read.
        optimizer: How it learns.
        loop: How long and how often.
        validation: Pictures while it goes on.
    """

    pretrained_model_name_or_path: str = "tiny"
    train_data_dir: str
    output_dir: Path
    id_adapter: str | None = None
    unet_lora_rank: int = 0
    rollout: Annotated[MethodConfig, tyro.conf.AvoidSubcommands] = field(default_factory=AlignPropConfig)
    data: Annotated[DataConfig, _BARE] = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: Annotated[LoopConfig, _BARE] = field(default_factory=LoopConfig)
    validation: Annotated[ValidationConfig, _BARE] = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        method, loop = self.rollout, self.loop
        if isinstance(method, DDPOConfig) and loop.train_batch_size < 2:
            raise TrainingError(
                f"ddpo compares the pictures of a batch: train_batch_size must be at least 2, not "
                f"{loop.train_batch_size}. grpo draws several pictures of each sample."
            )
        if isinstance(method, GRPOConfig) and loop.checkpointing_steps % method.updates:
            raise TrainingError(
                f"grpo learns in {method.updates} updates from the same pictures, which no checkpoint holds: "
                f"checkpointing_steps must be a multiple of {method.updates}, not {loop.checkpointing_steps}."
            )
