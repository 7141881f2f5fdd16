"""Files are written whole, with the mode of the umask, or our error is raised; reading has limits."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import idgen
from idgen import Identity, files
from idgen.checkpoints import native, public
from idgen.errors import CheckpointError, DataError, IdgenError
from idgen.evaluation.report import write_comparison
from idgen.provenance import IdentityBlocklist
from idgen.rewards.structure import StructureScorer
from tests.components import make_adapter, make_controlnet, make_unet

PERSON = Identity(embeddings=torch.ones(1, 4), encoder="test")


def writers() -> dict[str, Callable[[Path], object]]:
    """Everything public that writes: name → how it writes into a folder."""
    adapter = make_adapter(make_unet())
    config, state = native.plain_config(adapter), adapter.state_dict()
    net: Any = idgen.IdentityNet.from_config(make_controlnet(make_unet()).config)
    return {
        "identity": lambda folder: PERSON.save(folder / "a.safetensors"),
        "blocklist": lambda folder: IdentityBlocklist.of(PERSON, threshold=0.5).save(folder / "b.safetensors"),
        "adapter": lambda folder: adapter.save_pretrained(folder / "adapter"),
        "net": lambda folder: net.save_pretrained(folder / "net"),
        "safetensors": lambda folder: public.write(config, state, folder / "c.safetensors"),
        "pickle": lambda folder: public.write(config, state, folder / "c.bin"),
        "scorer": lambda folder: StructureScorer((8,)).save(folder / "d.safetensors"),
        "comparison": lambda folder: write_comparison(folder / "report", ("a", "b"), []),
    }


@pytest.fixture(scope="module")
def all_writers() -> dict[str, Callable[[Path], object]]:
    return writers()


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(mask, umask, all_writers, tmp_path):
    umask(mask)
    for write in all_writers.values():
        write(tmp_path)
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > len(all_writers)
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in written} == {
        file.name: oct(0o666 & ~mask) for file in written
    }


def test_a_place_that_cannot_be_written_is_an_error_of_ours(all_writers, tmp_path):
    (tmp_path / "file").write_text("")
    for name, write in all_writers.items():
        with pytest.raises(IdgenError, match="could not be written") as caught:
            write(tmp_path / "file")
        assert str(tmp_path) in str(caught.value), name


def test_a_read_only_disk_is_an_error_of_ours(all_writers, tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=16k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        for write in all_writers.values():
            with pytest.raises(IdgenError, match="could not be written"):
                write(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt(), ValueError("a bug")])
def test_an_interrupted_writer_leaves_the_old_file_and_nothing_else(error, tmp_path):
    (tmp_path / "a").write_text("old")

    def write() -> None:
        with files.write_whole(tmp_path / "a", DataError) as new:
            new.write_text("half")
            raise error

    with pytest.raises(DataError if isinstance(error, OSError) else type(error)):
        write()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "old")]


def test_a_folder_appears_with_its_last_file_last(tmp_path, monkeypatch):
    order: list[str] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(Path(b).name), replace(a, b)))
    with files.write_folder(tmp_path / "x", last="config.json") as new:
        for name in ("config.json", "a", "z"):
            (new / name).write_text(name)
        (new / "sub").mkdir()
    assert order[-1] == "config.json"
    assert sorted(order) == ["a", "config.json", "sub", "z"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"[" * 100_000, "JSON"),
        (b"[" * 40 + b"]" * 40, "levels deep"),
        (b'{"a": ' * 500 + b"1" + b"}" * 500, "levels deep"),
        (b"\xff\xfe{}", "JSON"),
        (b'{"a": "\\ud800"}', "JSON"),
        (b"9" * 5000, "JSON"),
        (b" " * (files.MAX_JSON_BYTES + 1), "longer"),
    ],
    ids=["deep", "lists", "tables", "encoding", "surrogate", "number", "long"],
)
def test_json_has_limits(text, why):
    with pytest.raises(DataError, match=why):
        files.parse_json(text, "The file", DataError)


def test_json_with_a_byte_order_mark():
    assert files.parse_json(b'\xef\xbb\xbf{"a": [1, "\xc3\xa9"]}', "The file") == {"a": [1, "é"]}


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "nowhere", tmp_path / "a\0b"):
        with pytest.raises(CheckpointError):
            files.read_tensors(place)
        with pytest.raises(CheckpointError):
            files.read_text(place)
