"""Every engine does what this process does: it prepares the same set, draws the same pictures, and refuses the same
people."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from idgen import Identity, load_tiny
from idgen.data.engine_options import EngineOptions
from idgen.data.engines import LocalProcesses, _Actor
from idgen.errors import BlockedIdentityError, DataError, EncoderMismatchError, IdgenError
from idgen.evaluation.drawer import draw
from idgen.evaluation.drawing import Drawing, DrawingSettings
from idgen.evaluation.opener import PipelineOpener
from idgen.faces import DlibEncoder
from idgen.generation import _open_guarded
from idgen.provenance import IdentityBlocklist
from idgen.provenance.options import MarkOptions
from tests.data.sets import contents, make_set, portrait, save

PEOPLE = {name: [Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=ord(name))] for name in "abc"}
DRAWINGS = [
    Drawing(path=f"{person}/{seed}", person=person, prompt="a face", label="", seed=seed)
    for person, seeds in (("a", 3), ("b", 3), ("c", 1))
    for seed in range(seeds)
]


def pictures(folder: Path, **options) -> dict[str, bytes]:
    """Drawn two at once. The last person is on the blocklist, which each process reads for itself."""
    refused = folder / "refused.safetensors"
    IdentityBlocklist.of(*PEOPLE["c"]).save(refused)
    marks = MarkOptions(watermark=False, blocklist=refused)
    with pytest.raises(BlockedIdentityError, match="is not drawn"):
        draw(
            PipelineOpener(partial(_open_guarded, marks, load_tiny)),
            DRAWINGS,
            PEOPLE,
            DrawingSettings(base="tiny", adapter="tiny", steps=1),
            folder,
            batch_size=2,
            **options,
        )
    assert not (folder / "c").exists()
    return {drawing.path: (folder / f"{drawing.path}.png").read_bytes() for drawing in DRAWINGS[:-1]}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, degrees in (("anna/1.png", 0), ("anna/2.png", 12), ("ben/1.png", 5)):
        save(portrait().rotate(degrees), folder / name)
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """A set with a shard for each photo, and pictures, made in this process."""
    folder = tmp_path_factory.mktemp("one")
    make_set(photos, folder / "set", shard_size=1)
    return contents(folder / "set"), pictures(folder)


@pytest.mark.parametrize("options", [EngineOptions(engine="local", workers=2), EngineOptions(engine="ray", workers=1)])
def test_an_engine_writes_the_same_bytes(options: EngineOptions, photos: Path, expected, tmp_path: Path) -> None:
    """Real processes, and a real Ray."""
    if options.engine == "ray":
        pytest.importorskip("ray", reason="Ray is not installed")
    with options.open() as engine:
        make_set(photos, tmp_path / "set", engine, shard_size=1)
        drawn = pictures(tmp_path, engine=engine)
    assert (contents(tmp_path / "set"), drawn) == expected


def test_a_worker_of_ray_returns_our_errors_as_data() -> None:
    """Ray would wrap them in its own."""

    def fail(task):
        raise EncoderMismatchError(f"{task} is of another encoder")

    answer = _Actor(fail)({"task": ["shard 1"]})
    assert answer == {"name": ["shard 1 is of another encoder"], "error": ["EncoderMismatchError"]}


def test_no_workers_are_our_error() -> None:
    with pytest.raises(DataError, match="workers must be >= 1"):
        LocalProcesses(0)


def test_no_option_of_an_engine_is_ignored() -> None:
    with pytest.raises(IdgenError, match="--workers 2 has no effect with --engine inprocess"):
        EngineOptions(workers=2)
    with pytest.raises(IdgenError, match="--address auto has no effect with --engine local"):
        EngineOptions(engine="local", address="auto")
    with pytest.raises(IdgenError, match="at least 0"):
        EngineOptions(engine="local", workers=-1)
