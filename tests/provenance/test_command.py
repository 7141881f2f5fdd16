"""Marks and limits from the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen.faces import DlibEncoder
from idgen.provenance import read_settings, read_watermark
from tests.components import make_adapter, make_pipeline


@pytest.fixture
def refuse(run, capsys: pytest.CaptureFixture[str]):
    def refuse(*arguments: object) -> str:
        with pytest.raises(SystemExit):
            run(*arguments)
        return " ".join(capsys.readouterr().err.split())

    return refuse


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    pipeline = make_pipeline()
    pipeline.save_pretrained(folder / "base")
    make_adapter(pipeline.unet, encoder=DlibEncoder.name, embedding_dim=128).save_pretrained(folder / "adapter")
    return folder


@pytest.fixture
def photo(astronaut: np.ndarray, tmp_path: Path) -> Path:
    Image.fromarray(astronaut).save(tmp_path / "eileen.png")
    return tmp_path / "eileen.png"


def common(models: Path) -> list[object]:
    return ["generate", "a face", "--base", models / "base", "--id-adapter", models / "adapter", "--steps", 1]


def test_a_picture_is_marked_and_inspected(run, photo: Path, tmp_path: Path) -> None:
    marked, plain = tmp_path / "marked.png", tmp_path / "plain.png"
    tiny = ["generate", "a face", "--steps", 1, "--photo", photo]
    run(*tiny, "--count", 2, "--seed", 5, "--output", marked)
    run(*tiny, "--seed", 6, "--output", plain, "--no-watermark")
    second = tmp_path / "marked-6.png"
    told = read_settings(second)
    assert told == {**(read_settings(plain) or {}), "seed": 6}
    assert told is not None
    assert (told["prompt"], told["base"], told["adapter"], told["steps"]) == ("a face", "tiny", "tiny", 1)
    assert b"eileen" not in second.read_bytes()
    assert read_watermark(Image.open(second)).found
    assert not read_watermark(Image.open(plain)).found

    shown = run("inspect", second)
    assert "a face" in shown
    assert "found (3" in shown
    assert "content credentials  none" in shown
    shown = run("inspect", photo)
    assert "settings" in shown
    assert "not found" in shown


def test_no_path_gets_into_a_picture(run, photo: Path, models: Path, tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    run(*common(models), "--photo", photo, "--no-watermark", "--output", picture)
    told = read_settings(picture)
    assert told is not None
    assert (told["base"], told["adapter"]) == ("base", "adapter")
    assert str(models).encode() not in picture.read_bytes()


def test_tables_are_marked_too(run, tmp_path: Path) -> None:
    run("generate", "a face", "--steps", 1, "--random", 1, "--output", tmp_path / "people")
    (picture,) = (tmp_path / "people").rglob("*.png")
    assert read_watermark(Image.open(picture)).found
    told = read_settings(picture)
    assert told is not None
    assert told["prompt"] == "a face"
    assert not {"person", "identity"} & set(told)


def test_blocked_people_are_neither_enrolled_nor_drawn(run, refuse, photo: Path, models: Path, tmp_path: Path) -> None:
    refused, identity = tmp_path / "refused.safetensors", tmp_path / "eileen.safetensors"
    run("enroll", photo, "--output", identity)
    assert "people=1" in run("blocklist", refused, "--add", photo)
    assert "people=2" in run("blocklist", refused, "--add", identity)
    assert "on the blocklist" in refuse("blocklist", refused, "--check", photo)
    assert "on the blocklist" in refuse("enroll", photo, "--blocklist", refused, "--output", tmp_path / "no")
    assert not (tmp_path / "no").exists()
    drawn = tmp_path / "drawn.png"
    for person in (["--photo", photo], ["--identity", identity]):
        assert "on the blocklist" in refuse(*common(models), *person, "--blocklist", refused, "--output", drawn)
    assert not drawn.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.jpg"], "PNG"),
        (["--check-output"], "--blocklist"),
        (["--key", __file__], "--certificates and --key are required together"),
        (["--blocklist", "nowhere"], "There is no file or folder 'nowhere'"),
    ],
)
def test_bad_options(refuse, photo: Path, models: Path, arguments: list[str], message: str) -> None:
    assert message in refuse(*common(models), "--photo", photo, *arguments)
