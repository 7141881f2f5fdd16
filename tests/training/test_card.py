"""The model card of a finished run: its data, losses, updates and last validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from idgen.data.manifest import Manifest
from idgen.losses.settings import DEFAULTS
from idgen.training.config import AdapterConfig, DataConfig, DenoisingConfig, LoopConfig, LossConfig, RewardConfig
from idgen.training.encoders import RunEncoders
from idgen.training.summary import closing, describe_training
from tests.components import make_adapter, make_unet

MANIFEST = Manifest(
    format="1",
    encoder="dlib-resnet-v1",
    dim=128,
    detector="DlibDetector",
    shards={},
    counts={},
    dropped={},
    aside={},
    splits={"train": {"people": 13, "usable": 50}},
    groups={"train": {"": 1, "a": 4, "b": 8}},
    settings={},
)


def card_of(folder: Path, config: Any, rows: list[dict[str, Any]]) -> str:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    describe_training(folder, MANIFEST, config, updates=rows[-1]["step"])
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("base", ["someone/base", "tiny"])
def test_stage_one(base: str, tmp_path: Path) -> None:
    make_adapter(make_unet()).save_pretrained(tmp_path)
    config = DenoisingConfig(
        base=base,
        train_data_dir="shards",
        output_dir=tmp_path,
        losses=LossConfig.only(identity=0.5),
        loop=LoopConfig(max_train_steps=1000, train_batch_size=8),
    )
    measured = {"validation/faces": 1.0, "validation/similarity/a": 0.75, "validation/others/a": 0.5}
    rows = [{"step": 1}, {"step": 1, "validation/faces": 0.1, "validation/similarity/a": 0.1}, {"step": 2, **measured}]
    for text in (card_of(tmp_path, config, rows), card_of(tmp_path, config, rows)):  # a run that goes on writes again
        assert text.count("## Training") == 1
        assert f"| base model | {base} |" in text
        assert "| data | 50 photos of 13 people |" in text
        assert "| groups of the people | 8 b, 4 a, 1 not known |" in text
        assert "| updates | 2 of 8 samples per process |" in text  # it was stopped
        assert "| losses | denoising=1, identity=0.5@0.85 |" in text
        assert "| similarity to unseen people, a | 0.750 (to other people 0.500) |" in text
        assert ('.from_pretrained("someone/base")' in text) == (base != "tiny")


def test_an_adapter_of_parts_beside_that_of_a_person(tmp_path: Path) -> None:
    make_adapter(make_unet(), encoder="parts/dlib-resnet-v1").save_pretrained(tmp_path)
    config = DenoisingConfig(
        train_data_dir="shards",
        output_dir=tmp_path,
        adapter=AdapterConfig(beside="tiny"),
        data=DataConfig(encoder="parts/dlib-resnet-v1"),
    )
    assert RunEncoders.of(config, MANIFEST) == RunEncoders("parts/dlib-resnet-v1", ("dlib-resnet-v1",))
    text = card_of(tmp_path, config, [{"step": 1}])
    assert "# Adapter of parts of a face" in text
    assert f'pipe.load_id_adapter("{tmp_path.name}", adapter_name="parts")' in text
    assert "| beside the adapter | tiny |" in text
    told = " ".join(closing(config))
    assert "holds an adapter beside that of tiny" in told
    assert "idgen generate" not in told, "the command loads one adapter of people"


def test_settings_from_the_statistics_of_the_encoder(tmp_path: Path) -> None:
    losses = LossConfig.only(contrastive=0.01).fitted(DEFAULTS)
    text = card_of(tmp_path, DenoisingConfig(train_data_dir="s", output_dir=tmp_path, losses=losses), [{"step": 1}])
    assert f"temperature={DEFAULTS.temperature:.3g}" in text


def test_a_lora_alone(tmp_path: Path) -> None:
    config = RewardConfig(train_data_dir="shards", output_dir=tmp_path, unet_lora_rank=4)
    text = card_of(tmp_path, config, [{"step": 3}])
    assert "load_lora_weights" in text
    assert "| from | nothing |" in text
    assert "| rewards | identity=5, by alignprop |\n| losses | preservation=1, denoising=1 |" in text
    assert "similarity" not in text
