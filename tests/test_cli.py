"""The commands, run in this process as the installed script runs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import idgen
from idgen import Identity
from idgen.commands import COMMANDS
from idgen.faces import DlibEncoder
from tests.components import make_adapter, make_pipeline


@pytest.fixture
def photo(astronaut: np.ndarray, tmp_path: Path) -> Path:
    Image.fromarray(astronaut).save(tmp_path / "eileen.png")
    return tmp_path / "eileen.png"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and an adapter for it, as folders."""
    folder = tmp_path_factory.mktemp("models")
    pipeline = make_pipeline()
    pipeline.save_pretrained(folder / "base")
    make_adapter(pipeline.unet, encoder=DlibEncoder.name, embedding_dim=128).save_pretrained(folder / "adapter")
    return folder


def test_enroll_generate_info(run, photo: Path, models: Path, tmp_path: Path) -> None:
    identity = tmp_path / "new" / "eileen.safetensors"
    assert run("enroll", photo, "--name", "Eileen", "--output", identity).strip() == str(identity)
    assert Identity.load(identity).name == "Eileen"

    common = ["generate", "a face", "--base", models / "base", "--id-adapter", models / "adapter", "--steps", 2]
    from_file, from_photo = tmp_path / "a.png", tmp_path / "b.png"
    run(*common, "--identity", identity, "--output", from_file)
    run(*common, "--photo", photo, "--output", from_photo)
    assert np.array_equal(np.asarray(Image.open(from_file)), np.asarray(Image.open(from_photo)))
    run(*common, "--photo", photo, "--output", from_photo, "--id-scale", 0)
    assert not np.array_equal(np.asarray(Image.open(from_file)), np.asarray(Image.open(from_photo)))

    shown = run("info", identity)
    assert "Eileen" in shown
    assert DlibEncoder.name in shown
    shown = run("info", models / "adapter")
    assert "mlp, 4 tokens" in shown
    assert "7 cross-attention layers of width 16" in shown


def test_several_pictures(run, photo: Path, models: Path, tmp_path: Path) -> None:
    common = ["generate", "a face", "--base", models / "base", "--id-adapter", models / "adapter", "--steps", 1]
    paths = run(*common, "--photo", photo, "--count", 2, "--seed", 7, "--output", tmp_path).split()
    assert paths == [str(tmp_path / "eileen-7.png"), str(tmp_path / "eileen-8.png")]
    first, second = (np.asarray(Image.open(path)) for path in paths)
    assert not np.array_equal(first, second)


def test_a_face_is_swapped_and_the_rest_of_the_picture_stays(
    run, photo: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--base", models / "base", "--id-adapter", models / "adapter", "--steps", 2, "--no-watermark"]
    assert run("swap", photo, "--photo", photo, *common).strip() == "eileen-swap.png"
    old, new = (np.asarray(Image.open(file), np.int16) for file in (photo, "eileen-swap.png"))
    changed = np.abs(new - old).max(-1) > 0
    assert changed[120, 220], "the face"
    assert 0.01 < changed.mean() < 0.2
    run("swap", photo, "--anonymise", *common, "--output", "nobody.png")
    nobody = np.asarray(Image.open("nobody.png"), np.int16)
    assert (nobody != new)[changed].any(), "the anonymised face is another one"
    rows, columns = (np.flatnonzero(changed.any(axis)) for axis in (1, 0))
    nobody[rows[0] - 2 : rows[-1] + 3, columns[0] - 2 : columns[-1] + 3] = 0  # a pixel of the face may stay by chance
    outside = nobody.any(-1)
    assert np.array_equal(nobody[outside], old[outside]), "bit for bit around the face"
    shown = run("inspect", "eileen-swap.png")
    assert "swap" in shown


def test_images_are_generated_without_the_face_encoder_of_an_identity(run, models: Path, tmp_path: Path) -> None:
    make_adapter(make_pipeline().unet).save_pretrained(tmp_path / "adapter")
    Identity(embeddings=torch.ones(1, 8), encoder="test").save(tmp_path / "anna.safetensors")
    common = ["generate", "a face", "--base", models / "base", "--id-adapter", tmp_path / "adapter", "--steps", 1]
    (picture,) = run(*common, "--identity", tmp_path / "anna.safetensors", "--output", tmp_path / "a.png").split()
    assert Path(picture).is_file()


PERSON = ["generate", "a face", "--identity", "person.safetensors"]
"""With a base that does not exist: opening it would be another error."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["enroll"], "At least one photo"),
        (["enroll", "photo.jpg", "--face", "big"], "--face"),
        (["generate"], "A prompt is required"),
        (["generate", "a face"], "--photo or --identity is required"),
        (["swap", "photo.jpg"], "--photo or --identity is required"),
        (["swap", "photo.jpg", "--identity", *["person.safetensors"] * 2, "--face", "0"], "2 people, but --face 1"),
        (["swap", "photo.jpg", "--identity", "person.safetensors", "--anonymise"], "leave out --photo and --identity"),
        (["swap", "photo.jpg", "--identity", "person.safetensors", "--strength", "2"], "--strength must be"),
        (["swap", "photo.jpg", "--identity", "person.safetensors", "--output", "a.jpg"], "must end in .png"),
        ([*PERSON, "--base", "no/base"], "--id-adapter is required"),
        ([*PERSON, "--base", "no/base", "--id-adapter", "no/adapter", "--key", "a.pem"], "--certificates"),
        ([*PERSON, "--base", "no/base", "--id-adapter", "no/adapter", "--face", "big"], "--face"),
        ([*PERSON, "--base", "no/base", "--id-adapter", "no/adapter", "--output", "a.jpg"], "must end in .png"),
    ],
)
def test_errors_are_one_line(
    run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    Identity.random(DlibEncoder.name, DlibEncoder.dim).save("person.safetensors")
    for name in ("photo.jpg", "a.pem"):
        Path(name).write_bytes(b"")
    with pytest.raises(SystemExit, match="1"):
        run(*arguments)
    printed = " ".join(capsys.readouterr().err.split())
    assert message in printed
    assert "Traceback" not in printed


def test_help_and_version(run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run("--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert all(f" {name} {summary}" in printed for name, summary in COMMANDS.items())
    with pytest.raises(SystemExit, match="0"):
        run("--version")
    assert capsys.readouterr().out == f"idgen {idgen.__version__}\n"
    for wrong in ([], ["draw"]):
        with pytest.raises(SystemExit, match="2"):
            run(*wrong)
        assert "usage: idgen" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"train"}))
def test_help_has_an_example(run, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(command, "--help")
    printed = capsys.readouterr().out
    assert "None" not in printed.split("--")[0]
    assert len(printed.splitlines()) > 5
    assert any(line.startswith(f"idgen {command} ") or line == f"idgen {command}" for line in printed.splitlines())
