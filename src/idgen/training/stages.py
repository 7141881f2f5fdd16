"""`STAGES`, the table of `idgen train`, one row each. What trains is imported when it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .config import DenoisingConfig, RewardConfig
from .distil.config import DistilConfig
from .person.config import PersonConfig
from .restorer_config import RestorerConfig

Stage = Literal["denoise", "reward", "person", "distil", "restorer"]


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """A kind of training.

    Attributes:
        config: Its configuration.
        train: MODULE:NAME of the function that trains; it returns something false if nothing was trained.
        closing: MODULE:NAME of the function that returns the last lines that are printed.
        presets: Names of the recommended recipes; each is a file in `presets`.
        example: Arguments of the example in the help.
        help: Options in the short help, by the path of their fields, before those of all stages.
    """

    config: type
    train: str
    closing: str
    presets: tuple[str, ...] = ()
    example: str
    help: tuple[str, ...]


STAGES: dict[Stage, StageRow] = {
    "denoise": StageRow(
        config=DenoisingConfig,
        train="idgen.training.run:train_denoising",
        closing="idgen.training.summary:closing",
        presets=("sd15", "sdxl", "tiny"),
        example="--preset sdxl --train_data_dir shards/ --output_dir run/",
        help=(
            *("base", "train_data_dir", "output_dir", "data.resolution"),
            *("adapter.id_adapter", "adapter.projection", "adapter.num_tokens", "adapter.identity_net"),
            "validation.eval_encoder",
        ),
    ),
    "reward": StageRow(
        config=RewardConfig,
        train="idgen.training.run:train_reward",
        closing="idgen.training.summary:closing",
        presets=("reward",),
        example="--preset reward --id_adapter run/ --train_data_dir shards/ --output_dir run-reward/",
        help=(
            *("base", "train_data_dir", "output_dir", "data.resolution"),
            *("id_adapter", "unet_lora_rank", "rollout.steps", "validation.eval_encoder"),
        ),
    ),
    "person": StageRow(
        config=PersonConfig,
        train="idgen.training.person.run:train_person",
        closing="idgen.training.person.card:closing",
        presets=("fast", "best"),
        example="photos/ --preset fast --output anna/",
        help=(
            *(
                "photos",
                "output_dir",
                "base",
                "learn",
                "id_adapter",
                "class_word",
                "eval_encoder",
                "lora_rank",
                "dora",
            ),
            *("prior_pictures", "triplet", "margin", "phase", "resolution", "patience"),
        ),
    ),
    "distil": StageRow(
        config=DistilConfig,
        train="idgen.training.distil.run:train_distil",
        closing="idgen.training.distil.run:closing",
        presets=("lcm", "ict"),
        example="--preset lcm --id_adapter run/ --train_data_dir shards/ --output_dir few/",
        help=(
            *("base", "train_data_dir", "output_dir", "data.resolution", "id_adapter", "lora_rank", "draw_steps"),
            *("consistency.method", "consistency.guidance_scale", "validation.eval_encoder"),
        ),
    ),
    "restorer": StageRow(
        config=RestorerConfig,
        train="idgen.training.restorer:train_restorer",
        closing="idgen.training.restorer:closing",
        example="--train_data_dir shards/ --output_dir restorer/",
        help=("base", "train_data_dir", "output_dir", "resolution", "drop_text", "id_adapter", "fit_people"),
    ),
}
