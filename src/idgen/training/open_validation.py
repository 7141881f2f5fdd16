"""The validation of a run: its people, read from the shards, and its face encoders."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from ..adapter import IdentityAdapter
from ..data.bank import IdentityBank
from ..data.columns import open_photo
from ..data.index import read_index
from ..data.manifest import Manifest
from ..data.storage import join
from ..errors import DataError, TrainingError
from ..faces import FaceEncoder, open_encoder, spec_of
from ..faces.registry import default_detector
from ..identity import Identity
from ..rewards import RewardHackingGuard
from .base import BaseModel
from .early_stopping import EarlyStopping
from .encoders import RunEncoders
from .run_config import ShardConfig
from .tracking import show_pictures
from .validation import SIMILARITY, Validation

_log = logging.getLogger(__name__)


def make_validation(
    config: ShardConfig,
    base: BaseModel,
    adapter: IdentityAdapter | None,
    accelerator: Accelerator,
    beside: IdentityAdapter | None = None,
    **drawing: Any,
) -> tuple[Validation | None, EarlyStopping | None]:
    """Make the validation of a run, and early stopping if there is a second face encoder.

    There is no validation without an adapter, or if the validation split has no people.

    Args:
        config: Configuration of the run.
        base: Its base model.
        adapter: The adapter.
        accelerator: Accelerator of the run.
        beside: See `Validation`.
        drawing: `steps` and `guidance_scale` of `Validation`.

    Raises:
        TrainingError: The second face encoder is the one used in training.
    """
    settings, shards = config.validation, config.train_data_dir
    if adapter is None or not settings.validation_people:
        return None, None
    try:
        bank = IdentityBank(shards, "validation")
    except DataError:
        if accelerator.is_main_process:
            _log.warning("The validation split of '%s' has no people: the run is not validated.", shards)
        return None, None
    encoders = _encoders(config, [adapter] if beside is None else [adapter, beside], accelerator)
    people = [_person(shards, bank, i, encoders) for i in range(min(settings.validation_people, len(bank)))]
    validation = Validation(
        base,
        adapter,
        people,
        settings.validation_prompts,
        default_detector(encoders[adapter.config["encoder"]]),
        encoders,
        config.output_dir / "validation",
        seed=config.loop.seed,
        beside=beside,
        show=partial(show_pictures, accelerator, settings.validation_prompts),
        **drawing,
    )
    if settings.eval_encoder is None:
        return validation, None
    trained, unseen = (f"{SIMILARITY}{name}" for name in (RunEncoders.of(config).compared[0], [*encoders][-1]))
    return validation, EarlyStopping(trained=trained, unseen=unseen, rule=RewardHackingGuard())


def _encoders(
    config: ShardConfig, adapters: Sequence[IdentityAdapter], accelerator: Accelerator
) -> dict[str, FaceEncoder]:
    """The face encoders of the adapters and of losses or rewards, and last the one that training never uses."""
    used = dict.fromkeys([*(each.config["encoder"] for each in adapters), *RunEncoders.of(config).compared])
    encoders: dict[str, FaceEncoder] = {name: open_encoder(spec_of(name)) for name in used}
    if config.validation.eval_encoder is not None:
        judge = open_encoder(config.validation.eval_encoder)
        if judge.name in used:
            raise TrainingError(f"'{judge.name}' is used in training; --eval_encoder must be another face encoder.")
        encoders[judge.name] = judge
    elif config.stage == "reward" and accelerator.is_main_process:
        _log.warning(
            "Only '%s', which is also rewarded, measures the pictures. Give another face encoder with --eval_encoder "
            "to detect reward hacking.",
            "', '".join(used),
        )
    return encoders


def _person(shards: str, bank: IdentityBank, number: int, encoders: Mapping[str, FaceEncoder]) -> dict[str, Identity]:
    """The identity of a person's first photo by each face encoder."""
    shard, row = (int(value) for value in bank.rows[bank.starts[number]])
    name = list(Manifest.open(shards).shards)[shard]
    index = read_index(join(shards, f"{name}.parquet"), ("key", "offset", "length", "landmarks"))
    found: dict[str, Any] = index.slice(row, 1).to_pylist()[0]
    photo = open_photo(join(shards, f"{name}.tar"), found)
    landmarks = np.asarray(found["landmarks"]).reshape(5, 2)
    return {
        encoder: Identity(
            embeddings=torch.from_numpy(network.embed(network.crop(photo, landmarks)[None])), encoder=encoder
        )
        for encoder, network in encoders.items()
    }
