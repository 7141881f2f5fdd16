"""Drawing many pictures: several at once are those that are drawn one by one, also after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from idgen import Identity, load_tiny
from idgen.errors import EvaluationError
from idgen.evaluation.drawer import draw
from idgen.evaluation.drawing import Drawing, DrawingSettings
from idgen.evaluation.opener import PipelineOpener
from idgen.faces import DlibEncoder
from idgen.weights_key import component_keys, pipeline_key

SETTINGS = DrawingSettings(base="tiny", adapter="tiny", steps=2)
PEOPLE = {name: [Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=ord(name))] for name in "abc"}
PEOPLE["both"] = [*PEOPLE["a"], *PEOPLE["b"]]
DRAWINGS = [
    Drawing(path=f"{person}/{seed}", person=person, prompt=prompt, label="", seed=seed)
    for person, prompt in (
        ("a", "a photo of a face"),
        ("b", "a cartoon of a <id>"),
        ("c", "a face"),
        ("both", "faces"),
    )
    for seed in range(2)
]
DRAWINGS += [Drawing(path=f"nobody/{seed}", person="", prompt="a face", label="", seed=seed) for seed in range(2)]


def pictures(folder: Path) -> dict[str, bytes]:
    return {drawing.path: (folder / f"{drawing.path}.png").read_bytes() for drawing in DRAWINGS}


def test_a_batch_draws_what_single_calls_draw(tmp_path: Path) -> None:
    pipe = PipelineOpener(load_tiny)
    draw(pipe, DRAWINGS, PEOPLE, SETTINGS, tmp_path / "single")
    draw(pipe, DRAWINGS, PEOPLE, SETTINGS, tmp_path / "many", batch_size=4)
    for drawing in DRAWINGS:
        single, one_of_many = (
            np.asarray(Image.open(tmp_path / name / f"{drawing.path}.png")).astype(int) for name in ("single", "many")
        )
        assert np.abs(single - one_of_many).max() <= 1, drawing.path
    whole = pictures(tmp_path / "many")
    for lost in ("b/1.json", "both/0.png", "nobody/1.json"):
        (tmp_path / "many" / lost).unlink()
    old = tmp_path / "many" / "a" / "0.json"
    old.write_text(old.read_text().replace('"id_scale"', '"scale"'))  # the name up to version 0.1.0
    draw(pipe, DRAWINGS, PEOPLE, SETTINGS, tmp_path / "many", batch_size=4)
    assert pictures(tmp_path / "many") == whole


def test_batch_size_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="batch_size must be >= 1, got 0"):
        draw(PipelineOpener(load_tiny), DRAWINGS, PEOPLE, SETTINGS, tmp_path, batch_size=0)


def decoder_tuned(pipe: Any) -> None:
    next(pipe.vae.decoder.parameters()).data += 0.01


def unet_trained(pipe: Any) -> None:
    pipe.unet.conv_in.weight.data *= 1.01


def text_encoder_trained(pipe: Any) -> None:
    pipe.text_encoder.get_input_embeddings().weight.data[5] += 0.1


def adapter_trained(pipe: Any) -> None:
    next(pipe.id_adapters["default"].parameters()).data += 0.1


def other_noise(pipe: Any) -> None:
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, prediction_type="sample")


def other_words(pipe: Any) -> None:
    pipe.tokenizer.add_tokens("zebra")


@pytest.mark.parametrize(
    "change", [decoder_tuned, unet_trained, text_encoder_trained, adapter_trained, other_noise, other_words]
)
def test_pictures_of_other_weights_are_not_taken_for_finished(change: Callable[[Any], None], tmp_path: Path) -> None:
    """Also if base and adapter have the same names: they may have been trained on, or written anew."""
    settings = replace(SETTINGS, steps=1)
    draw(PipelineOpener(load_tiny), DRAWINGS[:1], PEOPLE, settings, tmp_path)
    draw(PipelineOpener(load_tiny), DRAWINGS[:1], PEOPLE, settings, tmp_path)
    changed = load_tiny()
    assert {"unet", "id_adapters.default"} <= component_keys(changed).keys()  # whatever adapters are named
    change(changed)
    with pytest.raises(EvaluationError, match=r"a/0.* was drawn with other settings \(weights\)"):
        draw(PipelineOpener(lambda: changed), DRAWINGS[:1], PEOPLE, settings, tmp_path)


def test_the_key_of_a_pipeline_does_not_depend_on_floating_point_types_and_devices() -> None:
    """A file in float16 gives the same key on a CPU, which reads it in float32."""
    pipe = load_tiny()
    for module in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.id_adapters["default"]):
        module.half().float()
    key = pipeline_key(pipe)
    pipe.to(torch.float16)
    pipe.id_adapters["default"].half()
    assert pipeline_key(pipe) == key
