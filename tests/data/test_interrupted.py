"""Runs that are killed, run out of room, or find what another run left: the set is the one it would have been."""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from idgen.data import storage
from idgen.data.bank import IdentityBank
from idgen.data.engines import InProcess, LocalProcesses
from idgen.data.manifest import Manifest
from idgen.data.shard import ShardWorker
from idgen.errors import DataError, EncoderMismatchError, IdgenError
from idgen.faces import ENCODERS, DlibEncoder, EncoderRow, FaceAnalyzer

from .sets import EVERYBODY, blank, contents, fates, make_set, portrait, save

_PREPARE = [sys.executable, "-c", "from idgen.cli import main; main()", "prepare"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven inputs: two people, somebody's copy, nobody, and no picture."""
    folder = tmp_path_factory.mktemp("photos")
    save(portrait(), folder / "anna" / "1.png")
    save(portrait().rotate(12), folder / "anna" / "2.jpg", quality=60)
    save(portrait(), folder / "anna" / "copy.png")
    save(portrait().convert("L"), folder / "ben" / "1.png")
    save(portrait(100), folder / "ben" / "2.png")
    save(blank(), folder / "nobody" / "1.png")
    (folder / "nobody" / "2.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set of a run that nothing happened to: four shards."""
    output = tmp_path_factory.mktemp("whole")
    make_set(photos, output, shard_size=2)
    return output


@pytest.fixture
def in_child(analyzer: FaceAnalyzer) -> Callable[[Callable[[], None]], int | None]:
    """Run it in a fork of this process; the exit code. To open an analyzer takes a second; the fork has one."""
    analyzer.find(np.asarray(portrait()))

    def work_in_fork(work: Callable[[], None]) -> None:
        FaceAnalyzer.open = lambda _: analyzer  # pyright: ignore[reportAttributeAccessIssue]
        work()

    def run(work: Callable[[], None]) -> int | None:
        child = multiprocessing.get_context("fork").Process(target=work_in_fork, args=(work,))
        child.start()
        child.join(120)
        return child.exitcode

    return run


def make_and_be_killed(photos: Path, output: Path, commits: int, after: bool) -> None:
    """Prepare, and end by SIGKILL at the so-manyth file, before or after it gets its name."""
    rename, count = os.replace, 0

    def replace(source, target):
        nonlocal count
        count += 1
        if count == commits and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)
        if count == commits:
            os.kill(os.getpid(), signal.SIGKILL)

    storage.os.replace = replace  # pyright: ignore[reportAttributeAccessIssue]  # in the fork alone
    make_set(photos, output, shard_size=2)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_file_the_set_is_the_same(after, in_child, photos, whole, tmp_path):
    kills = 0
    while in_child(partial(make_and_be_killed, photos, tmp_path, kills // 2 + 1, after)) == -signal.SIGKILL:
        kills += 1
        if not (tmp_path / "manifest.json").exists():
            with pytest.raises(DataError, match="not a finished set"):
                Manifest.open(str(tmp_path))
    assert kills >= 8
    assert contents(tmp_path) == contents(whole)


def members_of(session: int) -> list[str]:
    return subprocess.run(["pgrep", "-s", str(session)], capture_output=True, text=True).stdout.split()


def test_kill_9_of_the_command_and_again(photos, tmp_path):
    """With two worker processes: they end with the command, or they would write into the next one's shards."""
    arguments = [str(photos), "--shard-size", "1", "--test-share", "0", "--validation-share", "0", "--workers", "2"]
    command = subprocess.Popen([*_PREPARE, *arguments, "--output", str(tmp_path / "cut")], start_new_session=True)
    while not list((tmp_path / "cut").glob("*.parquet")):
        assert command.poll() is None
        time.sleep(0.02)
    processes = members_of(command.pid)
    command.kill()
    command.wait()
    assert not (tmp_path / "cut" / "manifest.json").exists()
    assert len(processes) >= 3
    deadline = time.monotonic() + 60
    while left := members_of(command.pid):
        assert time.monotonic() < deadline, f"{len(left)} workers live on"
        time.sleep(0.05)
    for name in ("cut", "whole"):
        make_set(photos, tmp_path / name, shard_size=1)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


class Killer(ShardWorker):
    """A worker that is killed at its first shard, as often as there are files to remove."""

    def __call__(self, shard):
        left = sorted(Path(self.output, "kills").glob("*"))
        if shard.number == 1 and left:
            left[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(shard)


def test_a_killed_worker(photos, whole, tmp_path, monkeypatch):
    """Too often, which is our error, and then twice, which the run survives."""
    monkeypatch.setattr("idgen.data.prepare.ShardWorker", Killer)
    kills = tmp_path / "kills"
    kills.mkdir()
    for number in range(5):
        (kills / str(number)).touch()
    with pytest.raises(DataError, match=r"killed 3 times at .*000001"):
        make_set(photos, tmp_path, LocalProcesses(1), shard_size=2)
    assert len([*kills.iterdir()]) == 2
    make_set(photos, tmp_path, LocalProcesses(2), shard_size=2)
    kills.rmdir()  # which is empty
    assert contents(tmp_path) == contents(whole)


NO_ROOM = 7


def make_with_room(photos: Path, output: Path, room: int) -> None:
    """Prepare with a limit to the size of a file, and say in the exit code how it went."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
    try:
        make_set(photos, output, shard_size=2)
    except DataError as error:
        os._exit(NO_ROOM if "Free disk space" in str(error) else 1)
    os._exit(0)


@pytest.mark.parametrize("room", [0, 2_000, 30_000])
def test_no_room_for_a_file(room, in_child, photos, whole, tmp_path):
    assert in_child(partial(make_with_room, photos, tmp_path, room)) == NO_ROOM
    assert not any(name.endswith(storage.PARTIAL) for name in contents(tmp_path))
    make_set(photos, tmp_path, shard_size=2)
    assert contents(tmp_path) == contents(whole)


def test_a_disk_that_is_full_at_every_stage(in_child, photos, whole, tmp_path):
    """A real one that grows a little after each failure: also while the bank is written, where a mapped file would
    kill the process."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        size, failures = 16, 0
        while ended := in_child(partial(make_with_room, photos, tmp_path, resource.RLIM_INFINITY)):
            assert ended == NO_ROOM
            assert not any(name.endswith(storage.PARTIAL) for name in contents(tmp_path))
            failures, size = failures + 1, size + 16
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(tmp_path)], check=True)
        assert failures > 5
        assert contents(tmp_path) == contents(whole)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("file", ["000001.tar", "000001.parquet"])
def test_half_a_shard_is_not_read_and_is_made_again(file, photos, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    for damage in (cut, Path.unlink):
        damage(tmp_path / "set" / file)
        with pytest.raises(DataError, match="000001"):
            Manifest.open(str(tmp_path / "set"))
        make_set(photos, tmp_path / "set", shard_size=2)
        assert contents(tmp_path / "set") == contents(whole)


def test_a_damaged_manifest_or_bank_is_our_error(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "set")
    for name in ("embeddings.npy", "people.parquet", "rows.npy"):
        file = tmp_path / "set" / "bank" / name
        data = file.read_bytes()
        for broken in (data[: len(data) // 2], b""):
            file.write_bytes(broken)
            with pytest.raises(DataError, match="bank"):
                IdentityBank(str(tmp_path / "set"))
        file.write_bytes(data)
    cut(tmp_path / "set" / "manifest.json")
    with pytest.raises(DataError, match="cannot be read"):
        Manifest.open(str(tmp_path / "set"))


def test_fewer_photos_than_before_leave_nothing_behind(photos, whole, tmp_path):
    shutil.copytree(photos, tmp_path / "more")
    for i in range(3):
        save(portrait(shift=2 * i), tmp_path / "more" / "zoe" / f"{i}.png")
    make_set(tmp_path / "more", tmp_path / "set", shard_size=2)
    (tmp_path / "set" / "2019.tar").write_bytes(b"somebody's own file")
    (tmp_path / "set" / "notes.txt").write_text("and another")
    shutil.rmtree(tmp_path / "more" / "zoe")
    (tmp_path / "more").rename(tmp_path / "photos")  # the places of the photos are in no file but the fingerprints
    make_set(tmp_path / "photos", tmp_path / "set", shard_size=2)
    found = contents(tmp_path / "set")
    assert found.pop("2019.tar")
    assert found.pop("notes.txt")
    assert {name: data for name, data in found.items() if name.endswith(".tar")} == {
        name: data for name, data in contents(whole).items() if name.endswith(".tar")
    }
    assert sorted(found) == sorted(contents(whole))


class OtherEncoder(DlibEncoder):
    name = "another"


def test_shards_of_two_encoders_are_never_mixed(photos, whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path / "set")
    monkeypatch.setitem(ENCODERS, "another", EncoderRow(open=lambda _: OtherEncoder(), licence="CC0", help="another"))
    with pytest.raises(EncoderMismatchError, match=r"'dlib-resnet-v1', not by 'another'"):
        make_set(photos, tmp_path / "set", shard_size=2, encoder="another")
    assert contents(tmp_path / "set") == contents(whole)  # also the manifest: it is still a finished set
    (tmp_path / "set" / "000000.parquet").unlink()
    with pytest.raises(EncoderMismatchError):
        make_set(photos, tmp_path / "set", shard_size=2, encoder="another")
    make_set(photos, tmp_path / "other", shard_size=2, encoder="another")
    shutil.copytree(whole, tmp_path / "mixed")
    for suffix in ("tar", "parquet"):
        shutil.copy(tmp_path / "other" / f"000001.{suffix}", tmp_path / "mixed")
    with pytest.raises(EncoderMismatchError):
        Manifest.open(str(tmp_path / "mixed"))
    with pytest.raises(EncoderMismatchError):
        make_set(photos, tmp_path / "mixed", shard_size=2)


def test_an_error_in_a_worker_ends_the_run_and_the_others(photos, tmp_path, monkeypatch):
    (tmp_path / "000003.tar").mkdir()
    with pytest.raises(IdgenError, match="could not be written"):
        make_set(photos, tmp_path, LocalProcesses(2), shard_size=2)
    (tmp_path / "000003.tar").rmdir()
    make_set(photos, tmp_path, InProcess(), shard_size=2, people=EVERYBODY)
    assert fates(tmp_path)["anna/1.png"] == "usable"
