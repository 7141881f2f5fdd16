"""What a run is watched with: pictures of people it does not see, by the adapter's encoder and another one."""

from __future__ import annotations

import logging
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
from ..faces import DlibDetector, FaceAnalyzer, FaceEncoder
from ..identity import Identity
from ..rewards import RewardHackingGuard
from .base import BaseModel
from .config import DenoisingConfig, RewardConfig
from .hacking import HackingGuard
from .trackers import show_pictures
from .validation import Validation

_log = logging.getLogger(__name__)


def make_watch(
    config: DenoisingConfig | RewardConfig, base: BaseModel, adapter: IdentityAdapter | None, accelerator: Accelerator
) -> tuple[Validation | None, HackingGuard | None]:
    """The validation of a run, and with a second encoder the guard against reward hacking.

    Nothing is drawn where there is no adapter, or nobody is in the validation split.

    Raises:
        TrainingError: The second encoder is the adapter's own.
    """
    settings, shards = config.validation, config.train_data_dir
    if adapter is None:
        return None, None
    try:
        bank = IdentityBank(shards, "validation")
    except DataError:
        if settings.validation_people and accelerator.is_main_process:
            _log.warning(
                "Nobody of '%s' is in the validation split: there will be no pictures and no similarities.", shards
            )
        return None, None
    if not settings.validation_people:
        return None, None
    own = adapter.config["encoder"]
    encoders: dict[str, FaceEncoder] = {own: FaceAnalyzer.for_encoder(own).encoder}
    if settings.judge is not None:
        from ..evaluation.networks import open_encoder  # the one thing of a later room: networks that only judge

        judge = open_encoder(settings.judge)
        if judge.name == own:
            raise TrainingError(f"'{own}' is what the training uses; a judge must be another encoder.")
        encoders[judge.name] = judge
    elif isinstance(config, RewardConfig) and accelerator.is_main_process:
        _log.warning(
            "Only '%s' judges, which is also rewarded: name another encoder as --judge to notice hacking.", own
        )
    people = [_person(shards, bank, i, encoders) for i in range(min(settings.validation_people, len(bank)))]
    validation = Validation(
        base,
        adapter,
        people,
        settings.validation_prompts,
        DlibDetector(),
        encoders,
        config.output_dir / "validation",
        seed=config.loop.seed,
        show=partial(show_pictures, accelerator, settings.validation_prompts),
    )
    if len(encoders) == 1:
        return validation, None
    trained, unseen = (f"validation/similarity/{name}" for name in encoders)
    return validation, HackingGuard(trained=trained, unseen=unseen, rule=RewardHackingGuard())


def _person(shards: str, bank: IdentityBank, number: int, encoders: dict[str, FaceEncoder]) -> dict[str, Identity]:
    """A person's first photo, by every encoder."""
    shard, row = (int(value) for value in bank.rows[bank.starts[number]])
    name = list(Manifest.open(shards).shards)[shard]
    facts: dict[str, Any] = read_index(join(shards, f"{name}.parquet")).slice(row, 1).to_pylist()[0]
    photo = open_photo(join(shards, f"{name}.tar"), facts)
    landmarks = np.asarray(facts["landmarks"]).reshape(5, 2)
    return {
        encoder: Identity(
            embeddings=torch.from_numpy(network.embed(network.crop(photo, landmarks)[None])), encoder=encoder
        )
        for encoder, network in encoders.items()
    }
