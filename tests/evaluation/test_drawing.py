"""Drawing many pictures: several at once are those that are drawn one by one, also after an interruption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen import Identity, load_tiny
from idgen.errors import EvaluationError
from idgen.evaluation.drawer import draw
from idgen.evaluation.drawing import Drawing, DrawingSettings
from idgen.evaluation.opener import PipelineOpener
from idgen.faces import DlibEncoder

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
