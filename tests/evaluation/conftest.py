"""People, and the evaluation encoder that no training sees."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen import cli
from idgen.evaluation.cases import Case, load_cases

PEOPLE = 2


@pytest.fixture(scope="module")
def run():
    def run(*arguments: object) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["idgen", *map(str, arguments)])
            cli.main()

    return run


@pytest.fixture(scope="session")
def encoder(shared: Path) -> str:
    file = shared / "models" / "mobilefacenet_eval.onnx"
    if not file.is_file():
        pytest.skip(f"the evaluation encoder is not at {file}")
    return f"imagenet:{file}"


@pytest.fixture(scope="session")
def people(shared: Path, astronaut: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of a few people, and the astronaut, twice."""
    london = shared / "data" / "london"
    if not london.is_dir():
        pytest.skip(f"the photos of people are not at {london}")
    folder = tmp_path_factory.mktemp("people")
    for person in sorted(london.iterdir())[:PEOPLE]:
        shutil.copytree(person, folder / person.name)
    (folder / "eileen").mkdir()
    Image.fromarray(astronaut).save(folder / "eileen" / "1.png")
    Image.fromarray(astronaut[:300, 80:380]).save(folder / "eileen" / "2.png")
    return folder


def save_pictures(folder: Path, references: list, target: list, out: list) -> Case:
    """A case in MultiID-Bench's layout, of pictures with a colour in the left and in the right half."""
    root = folder / "bench" / "0001"
    root.mkdir(parents=True)
    halves = {f"ref_{i}": [colour, [0, 0, 0]] for i, colour in enumerate(references, 1)} | {"ori": target, "out": out}
    for name, (left, right) in halves.items():
        pixels = np.zeros((20, 40, 3), np.uint8)
        pixels[:, :20], pixels[:, 20:] = left, right
        Image.fromarray(pixels).save(root / f"{name}.jpg", format="PNG")  # lossless; the name is the benchmark's
    (root / "meta.json").write_text('{"prompt": "two people"}')
    return load_cases(folder / "bench")[0]
