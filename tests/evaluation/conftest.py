"""People, and the evaluation encoder that no training sees."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen import cli

PEOPLE = 4


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
