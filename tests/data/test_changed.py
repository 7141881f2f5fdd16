"""Photos that are replaced, two runs at once, and shards that were damaged: nothing of it is missed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Event
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ImageOps

from idgen.data.columns import open_photo
from idgen.data.index import read_index
from idgen.data.manifest import Manifest
from idgen.data.sources import find_sources
from idgen.data.storage import locked
from idgen.errors import DataError
from idgen.faces import FaceAnalyzer

from .sets import contents, index, make_set, portrait, save


@pytest.fixture(autouse=True, scope="module")
def opened(analyzer: FaceAnalyzer) -> Iterator[None]:
    """To open an analyzer takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FaceAnalyzer, "open", lambda _: analyzer)
        yield


@pytest.fixture(scope="module")
def whole(opened, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of two photos of one person, and the photos beside them."""
    folder = tmp_path_factory.mktemp("whole")
    save(portrait(), folder / "photos" / "anna" / "1.bmp")
    save(portrait().rotate(12), folder / "photos" / "anna" / "2.bmp")
    make_set(folder / "photos", folder / "set", shard_size=1)
    return folder


def test_a_replaced_photo_changes_the_set(whole, tmp_path):
    """Same name, same size, same time of the last change; only its own shard is made again."""
    shutil.copytree(whole, tmp_path / "copy")
    photo, output = tmp_path / "copy" / "photos" / "anna" / "1.bmp", tmp_path / "copy" / "set"
    make_set(tmp_path / "copy" / "photos", output, shard_size=1)
    before, stat = contents(output), photo.stat()
    make_set(tmp_path / "copy" / "photos", output, shard_size=1)
    assert contents(output) == before
    save(ImageOps.mirror(portrait()), photo)
    os.utime(photo, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert photo.stat().st_size == stat.st_size
    make_set(tmp_path / "copy" / "photos", output, shard_size=1)
    after = contents(output)
    assert photo.read_bytes() in after["000000.tar"]
    assert after["000001.tar"] == before["000001.tar"]
    assert after["manifest.json"] != before["manifest.json"]


def test_a_photo_of_which_an_index_says_nothing_is_a_reference(whole, tmp_path):
    """For everything that reads the set: the people, their bank, and the counts."""
    shutil.copytree(whole / "set", tmp_path / "set")
    for file in (tmp_path / "set").glob("0*.parquet"):
        table = pq.read_table(file)
        column = table.column_names.index("reference")
        pq.write_table(table.set_column(column, table.schema.field(column), pa.nulls(len(table), pa.bool_())), file)
    assert all(index(tmp_path / "set")["reference"].to_pylist())
    manifest = make_set(whole / "photos", tmp_path / "set", shard_size=1)
    assert manifest == Manifest.open(str(whole / "set"))
    bank = "bank/people.parquet"
    assert contents(tmp_path / "set")[bank] == contents(whole / "set")[bank]


def pack_tar(photos: Path, target: Path) -> None:
    with tarfile.open(target, "w") as tar:
        tar.add(photos, ".")


def pack_zip(photos: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.write(path, path.relative_to(photos))


def pack_parquet(photos: Path, target: Path) -> None:
    rows = [{"image": path.read_bytes()} for path in sorted(photos.rglob("*.jpg"))]
    pq.write_table(pa.Table.from_pylist(rows), target)


def pack_csv(photos: Path, target: Path) -> None:
    target.write_text(f"path\n{photos}/anna/1.jpg\n")


PACKED: dict[str, Callable[[Path, Path], None]] = {
    "tar": pack_tar,
    "zip": pack_zip,
    "parquet": pack_parquet,
    "csv": pack_csv,
}


@pytest.mark.parametrize("suffix", PACKED)
def test_a_photo_replaced_in_a_container_is_another_input(suffix, tmp_path):
    found = []
    (tmp_path / "photos" / "anna").mkdir(parents=True)
    for data in (b"one", b"two", b"two"):
        if not found or data != found[-1][1]:
            time.sleep(0.02)  # file systems count time in steps
            (tmp_path / "photos" / "anna" / "1.jpg").write_bytes(data)
            PACKED[suffix](tmp_path / "photos", tmp_path / f"in.{suffix}")
        layout = suffix if suffix in ("parquet", "csv") else "webdataset"
        (source,) = find_sources(str(tmp_path / f"in.{suffix}"), layout)
        assert source.photo
        found.append((repr(source), source.photo.read()))
    assert [data for _, data in found] == [b"one", b"two", b"two"]
    assert found[0][0] != found[1][0] == found[2][0]


def hold(folder: str, held: Event) -> None:
    with locked(folder):
        held.set()
        signal.pause()


def test_a_second_run_is_refused_until_the_first_has_ended_or_was_killed(whole, tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    other = context.Process(target=hold, args=(str(tmp_path / "set"), held))
    other.start()
    assert held.wait(60)
    with pytest.raises(DataError, match=r"Another .*set'"):
        make_set(whole / "photos", tmp_path / "set")
    assert list(contents(tmp_path / "set")) == [".lock"]
    os.kill(other.pid or 0, signal.SIGKILL)
    other.join()
    make_set(whole / "photos", tmp_path / "set")
    make_set(whole / "photos", tmp_path / "set")


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))


def test_a_flipped_bit_is_found_when_the_set_is_opened_and_mended_by_preparing_again(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    output = tmp_path / "copy" / "set"
    make_set(tmp_path / "copy" / "photos", output, shard_size=1)
    before = contents(output)
    flip(output / "000001.tar", 700)
    with pytest.raises(DataError, match=r"'000001'.*checksum"):
        Manifest.open(str(output))
    make_set(tmp_path / "copy" / "photos", output, shard_size=1)
    assert contents(output) == before
    data = (output / "000001.parquet").read_bytes()
    for place in range(16, len(data) - 12_000, 499):
        flip(output / "000001.parquet", place)
        with pytest.raises(DataError, match="000001"):
            read_index(str(output / "000001.parquet"))
        flip(output / "000001.parquet", place)


def test_a_set_with_a_shard_of_another_set_is_refused(whole, tmp_path):
    shutil.copytree(whole / "set", tmp_path / "set")
    save(portrait(shift=6), tmp_path / "photos" / "anna" / "1.bmp")
    make_set(tmp_path / "photos", tmp_path / "other", shard_size=1)
    for suffix in ("tar", "parquet"):
        shutil.copy(tmp_path / "other" / f"000000.{suffix}", tmp_path / "set")
    with pytest.raises(DataError, match="'000000'"):
        Manifest.open(str(tmp_path / "set"))


def test_an_error_while_reading_names_the_shard_and_the_photo(whole, tmp_path):
    shutil.copytree(whole / "set", tmp_path / "set")
    row = index(tmp_path / "set").to_pylist()[1]
    tar = tmp_path / "set" / "000001.tar"
    Manifest.open(str(tmp_path / "set"))
    for damage in (lambda: tar.write_bytes(tar.read_bytes()[: row["offset"] + 20]), tar.unlink):
        damage()
        with pytest.raises(DataError, match=rf"{row['key']}.*000001\.tar"):
            open_photo(str(tar), row)
