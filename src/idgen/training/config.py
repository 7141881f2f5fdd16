"""What can be set in a training run. Fields carry the names of diffusers' training scripts where those have one."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from ..errors import TrainingError

Config = TypeVar("Config")
_BARE = tyro.conf.arg(name="")  # --max_train_steps, as in diffusers' scripts, and not --loop.max_train_steps


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A new adapter, or one to go on with.

    Attributes:
        id_adapter: Folder, file or hub id of an adapter to go on with; the rest is then its own.
        encoder: Face encoder whose embeddings it reads.
        projection: "mlp" (4 tokens as FaceID) or "resampler" (16 as InstantID).
        num_tokens: Tokens for one identity.
        num_words: Pseudo-words for `<id>` in prompts; 0 for none.
        normalised: Whether embeddings are scaled to unit length.
        random_fusion: Whether text and identity are weighed at random, as in PhotoVerse.
    """

    id_adapter: str | None = None
    encoder: str = "dlib-resnet-v1"
    projection: Literal["mlp", "resampler"] = "mlp"
    num_tokens: int = 4
    num_words: int = 0
    normalised: bool = True
    random_fusion: bool = False


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What each loss counts; 0 leaves it out. docs/losses.md says when to use which.

    Attributes:
        snr_gamma: Of min-SNR weighting; 0 weighs all timesteps alike.
        background_weight: What a pixel beyond the face counts in the denoising loss.
        identity: Cosine of the face on the predicted picture.
        contrastive: The same against other people (InfoNCE).
        negatives: How many people of the bank each sample is compared with.
        temperature: Of the contrastive loss.
        t_max: The losses on faces count up to this share of the noise schedule.
        preservation: Outside the face, draw what the base model draws.
        background: Outside the face, draw the same for other people.
        layout: Keep the queries of cross-attention (PuLID).
        semantic: Keep what the text finds in the picture (PuLID).
        increment: What the identity adds stays on the face (FACT).
        words: PhotoVerse's regulariser of the pseudo-words.
        values: PhotoVerse's regulariser of the identity's values.
    """

    snr_gamma: float = 5.0
    background_weight: float = 1.0
    identity: float = 0.0
    contrastive: float = 0.0
    negatives: int = 1024
    temperature: float = 0.1
    t_max: float = 0.6
    preservation: float = 0.0
    background: float = 0.0
    layout: float = 0.0
    semantic: float = 0.0
    increment: float = 0.0
    words: float = 0.0
    values: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How the adapter learns.

    Attributes:
        name: "adamw", "adamw8bit" (needs bitsandbytes) or "prodigy" (needs prodigyopt; use learning_rate 1).
        learning_rate: At its height.
        weight_decay: Of AdamW.
        lr_scheduler: As in diffusers: constant_with_warmup, cosine, linear, …
        lr_warmup_steps: Steps until the height.
        max_grad_norm: Gradients are shortened to this length.
        ema_decay: Of the average that is saved and validated; 0 for none.
    """

    name: Literal["adamw", "adamw8bit", "prodigy"] = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    lr_scheduler: str = "constant_with_warmup"
    lr_warmup_steps: int = 100
    max_grad_norm: float = 1.0
    ema_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how often, where to.

    Attributes:
        max_train_steps: Updates of the weights.
        train_batch_size: Samples of one process in one pass.
        gradient_accumulation_steps: Passes for one update.
        gradient_checkpointing: Whether the UNet's layers are run again in the backward pass instead of kept.
        mixed_precision: "no", "fp16" or "bf16"; the adapter itself stays in float32.
        checkpointing_steps: A checkpoint every so many updates.
        checkpoints_total_limit: How many are kept.
        resume_from_checkpoint: "latest", the folder of one, or nothing.
        max_bad_steps: So many updates in a row without a finite loss end the run; single ones are skipped.
        report_to: "tensorboard", "wandb" (which sends numbers and pictures to its service) or "trackio";
            metrics.jsonl is written always.
        seed: Of weights, noise and the order of the samples.
        dry_run: Say what the run needs, time a few steps, and end.
    """

    max_train_steps: int = 10_000
    train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    max_bad_steps: int = 20
    report_to: Literal["tensorboard", "wandb", "trackio"] | None = None
    seed: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name in ("max_train_steps", "train_batch_size", "gradient_accumulation_steps", "checkpointing_steps"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, not {getattr(self, name)}.")


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
class RolloutConfig:
    """How pictures are drawn to be judged, and what counts.

    Attributes:
        method: "refl", "draft", "draft-lv" or "alignprop"; docs/training.md says which costs what.
        steps: Denoising steps.
        last: How many last steps have a gradient, or are chosen from.
        guidance_scale: 1 is cheapest, and what ReFL does.
        identity_weight: Of the likeness to the reference.
        preservation: Outside the face, draw what the base model draws; without it, rewards cost prompt fidelity.
    """

    method: Literal["refl", "draft", "draft-lv", "alignprop"] = "refl"
    steps: int = 20
    last: int = 5
    guidance_scale: float = 1.0
    identity_weight: float = 1.0
    preservation: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig:
    """Stage one: train an adapter by denoising photos of people, each drawn from another photo of them.

    Attributes:
        pretrained_model_name_or_path: Stable Diffusion model: a folder, a hub id, or "tiny".
        train_data_dir: Shards that `idgen prepare` has written.
        output_dir: Where the adapter, its checkpoints and metrics go.
        adapter: What is trained.
        losses: What each loss counts.
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
        id_adapter: What stage one has made: a folder, a file or a hub id.
        rollout: How pictures are drawn, and what counts.
        data: What is read.
        optimizer: How it learns.
        loop: How long and how often.
        validation: Pictures while it goes on.
    """

    pretrained_model_name_or_path: str = "tiny"
    train_data_dir: str
    output_dir: Path
    id_adapter: str
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    data: Annotated[DataConfig, _BARE] = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: Annotated[LoopConfig, _BARE] = field(default_factory=LoopConfig)
    validation: Annotated[ValidationConfig, _BARE] = field(default_factory=ValidationConfig)


def from_toml(kind: type[Config], file: Path) -> Config:
    """Read a configuration from a TOML file whose tables are the parts of the dataclass.

    Raises:
        TrainingError: The file cannot be read, or holds a key that is not known or a value of the wrong type.
    """
    try:
        values = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"'{file}' could not be read as TOML: {error}") from error
    return _build(kind, values, str(file))


def _build(kind: Any, values: dict[str, Any], where: str) -> Any:
    known = {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - known.keys()):
        raise TrainingError(f"{where}: {', '.join(unknown)} is not known; known are {', '.join(known)}.")
    required = (f.name for f in known.values() if dataclasses.MISSING is f.default is f.default_factory)
    if missing := [name for name in required if name not in values]:
        raise TrainingError(f"{where}: {', '.join(missing)} is missing.")
    made = {}
    for name, value in values.items():
        default = known[name].default_factory
        if dataclasses.is_dataclass(default):
            made[name] = _build(default, value, f"{where}, [{name}]")
        else:
            made[name] = _checked(known[name], value, f"{where}: {name}")
    return kind(**made)


def _checked(known: dataclasses.Field[Any], value: Any, where: str) -> Any:
    """The value in the type of the field; annotations are strings here, and simple enough to read."""
    kinds: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str, "Path": str}
    wanted = kinds.get(str(known.type).split(" ")[0], object)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool and wanted is not object):
        raise TrainingError(f"{where} must be of type {known.type}, not {value!r}.")
    if isinstance(value, list):
        return tuple(value)
    return Path(str(value)) if known.type == "Path" else value
