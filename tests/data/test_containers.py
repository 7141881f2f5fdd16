"""The same photos give the same people, captions and licences, whatever they are packed in.

No face is looked at: what is read is any bytes.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
import random
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idgen.data.sources import find_sources
from idgen.errors import DataError

from .sets import index, make_set, portrait, save

PEOPLE = (
    "anna",
    "Zoe\u0308",
    "O'Neil, Bob 3",
    "a::b",
    "zip:",
    "#1 100%?",
    "0",
    "1",
    "Dr. Who",
    "мой",
    "a\\b",
    "[x]",
    "x.tar",
)
FILES = ("1.jpg", "IMG 2.JPG", "Dr. Smith.png", "a.b.c.jpeg", "1.2.webp", "a::b.jpg", "jpg.jpg", "é.png", "100%.jpg")
DEPTHS = ("", "", "deep er", "anna/.../x", "a::b/c")


def told(photos: Path | str, layout: str) -> list[tuple[Any, ...]]:
    """Person, content, caption and licence of each photo; and why others are none."""
    found = []
    for source in find_sources(str(photos), layout):  # pyright: ignore[reportArgumentType]
        metadata = source.told()
        try:
            data = source.photo.read() if source.photo else source.missing
        except FileNotFoundError:
            data = "missing"
        if data != "empty-folder":  # which archives do not know
            found.append((metadata["label"], data, metadata["caption"], metadata["licence"]))
    return found


def make_photos(folder: Path, seed: int) -> Path:
    """A random tree of photos with captions and what else lies about."""
    draw = random.Random(seed)
    for i in range(draw.randrange(6, 25)):
        place = folder / draw.choice(PEOPLE) / draw.choice(DEPTHS)
        place.mkdir(parents=True, exist_ok=True)
        photo = place / draw.choice(FILES)
        photo.write_bytes(f"photo {i}".encode())
        kind = draw.choice(("", "txt", "json", "both"))
        if kind in ("txt", "both"):
            photo.with_suffix(".txt").write_text(
                f"caption {i} – très", encoding=draw.choice(("utf-8", "utf-8-sig", "utf-16", "cp1252"))
            )
        if kind in ("json", "both"):
            photo.with_suffix(".json").write_text(json.dumps({"licence": f"CC {i}"}))
        for junk in draw.sample(("._1.jpg", ".DS_Store", ".git/1.jpg", "__MACOSX/1.jpg"), draw.randrange(3)):
            (place / junk).parent.mkdir(exist_ok=True)
            (place / junk).write_bytes(b"junk")
    (folder / "anna" / "0001.jpg").parent.mkdir(exist_ok=True)
    for name in ("0001.jpg", "0001.mask.png", "0001.cls", "0001.npy", "0001.meta.json", "alone.txt"):
        (folder / "anna" / name).write_bytes(name.encode())
    (folder / "alone at the top.jpg").write_bytes(b"nobody's")
    os.link(folder / "anna" / "0001.jpg", folder / "anna" / "hard link.jpg")
    (folder / "anna" / "link.jpg").symlink_to("../alone at the top.jpg")
    return folder


def files_of(folder: Path) -> list[Path]:
    """In an order as a disk may list them."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    random.Random(str(folder)).shuffle(files)
    return files


def gnu_tar(*options: str) -> Callable[[Path, Path], Path]:
    def pack(photos: Path, target: Path) -> Path:
        out = target.with_suffix(".tar")
        subprocess.run(["tar", "-cf", out, *options], cwd=photos.parent, check=True)
        return out

    return pack


def python_tar(form: int, prefix: str = "") -> Callable[[Path, Path], Path]:
    def pack(photos: Path, target: Path) -> Path:
        with tarfile.open(target.with_suffix(".tar"), "w", format=form) as tar:
            for path in files_of(photos):
                tar.add(path, prefix + str(path.relative_to(photos)))
        return target.with_suffix(".tar")

    return pack


class MacInfo(zipfile.ZipInfo):
    """A member as macOS writes it: its name in UTF-8, without saying so."""

    def _encodeFilenameFlags(self):  # noqa: N802
        return self.filename.encode(), 0


def zipped(prefix: str = "", kind: type[zipfile.ZipInfo] = zipfile.ZipInfo, method: int = zipfile.ZIP_STORED):
    def pack(photos: Path, target: Path) -> Path:
        with zipfile.ZipFile(target.with_suffix(".zip"), "w", method) as archive:
            for path in files_of(photos):
                info = kind(prefix + str(path.relative_to(photos)))
                info.compress_type = method
                archive.writestr(info, path.read_bytes())
        return target.with_suffix(".zip")

    return pack


ARCHIVES = {
    "tar -C photos .": gnu_tar("-C", "photos", "."),
    "tar photos": gnu_tar("photos"),
    "tar ./photos": gnu_tar("./photos"),
    "tar absolute": lambda photos, target: gnu_tar("-P", str(photos))(photos, target),
    "tar --sort": gnu_tar("--sort=name", "--format=ustar", "-C", "photos", "."),
    "tar -h photos": gnu_tar("-h", "photos"),
    "python, pax": python_tar(tarfile.PAX_FORMAT),
    "python, gnu, wrapped": python_tar(tarfile.GNU_FORMAT, "data/photos/"),
    "zip": zipped(),
    "zip, deflated, wrapped": zipped("photos/", method=zipfile.ZIP_DEFLATED),
    "zip of macOS": zipped(kind=MacInfo),
}


@pytest.fixture(scope="module", params=range(3))
def photos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("folder") / "photos", request.param)


@pytest.mark.parametrize("pack", ARCHIVES.values(), ids=ARCHIVES)
def test_archives_are_what_folders_are(pack, photos, tmp_path):
    archive = pack(photos, tmp_path / "a::b")
    expected = told(photos, "folders")
    assert told(archive, "folders") == told(tmp_path, "webdataset") == expected
    assert told(archive, "flat") == told(photos, "flat") == [(None, *row[1:]) for row in expected]


def rows_of(photos: Path) -> list[dict[str, Any]]:
    """What a table says of the photos that folders show."""
    rows = []
    for source in find_sources(str(photos), "folders"):
        if source.photo:
            metadata = source.told()
            rows.append({"path": source.name, "person": metadata.pop("label"), **metadata})
    return rows


def write_csv(
    encoding: str = "utf-8", separator: str = ",", columns: tuple[str, ...] = ("path", "person", "caption", "licence")
):
    def write(rows: list[dict[str, Any]], target: Path) -> Path:
        with target.with_suffix(".csv").open("w", encoding=encoding, errors="replace", newline="") as file:
            out = csv.writer(file, delimiter=separator)
            out.writerow(columns)
            out.writerows([row[name] for name in ("path", "person", "caption", "licence")] for row in rows)
        return target.with_suffix(".csv")

    return write


def write_jsonl(rows: list[dict[str, Any]], target: Path) -> Path:
    target.with_suffix(".jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return target.with_suffix(".jsonl")


def write_parquet(image: Callable[[Path, str], Any] | None = None):
    def write(rows: list[dict[str, Any]], target: Path) -> Path:
        if image is not None:
            rows = [{**row, "image": image(target.parent, row["path"])} for row in rows]
        pq.write_table(pa.Table.from_pylist(rows), target.with_suffix(".parquet"), row_group_size=7)
        return target.with_suffix(".parquet")

    return write


TABLES = {
    "csv": write_csv(),
    "csv with a mark": write_csv("utf-8-sig"),
    "csv of a spreadsheet": write_csv("utf-16", "\t", ("Path", " Person", "Caption", "Licence")),
    "csv with semicolons": write_csv("utf-8-sig", ";", ("file_name", "person", "caption", "license")),
    "json lines": write_jsonl,
    "parquet of paths": write_parquet(),
    "parquet of bytes": write_parquet(lambda folder, path: (folder / path).read_bytes()),
    "parquet of images": write_parquet(lambda folder, path: {"bytes": (folder / path).read_bytes(), "path": None}),
    "parquet of images by path": write_parquet(lambda _, path: {"bytes": None, "path": path}),
}


@pytest.mark.parametrize("write", TABLES.values(), ids=TABLES)
def test_tables_are_what_folders_are(write, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "in")
    table = write(rows_of(photos), tmp_path / "in" / "table")
    expected = [row for row in told(photos, "folders") if isinstance(row[1], bytes)]
    layout = table.suffix[1:]
    assert told(table, layout) == told(tmp_path / "in", layout) == expected


NAMES = [
    (0, "0"),
    (1, "1"),
    (1.0, "1"),
    ("1", "1"),
    (-2.5, "-2.5"),
    (10**17 + 1, "100000000000000001"),
    (Decimal("7.00"), "7"),
    ("  anna ", "anna"),
    ("Zoe\u0308", "Zo\u00eb"),
    (b"anna", "anna"),
    (math.nan, None),
    (math.inf, None),
    (None, None),
    (True, None),
    ("", None),
    (" ", None),
    (["anna"], None),
    ({"name": "anna"}, None),
]


@pytest.mark.parametrize(("value", "label"), NAMES, ids=repr)
def test_a_person_has_one_name_whatever_type_it_is_stored_as(value, label, tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"photo")
    row = {"path": "1.jpg", "person": value}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "1.parquet")
    assert told(tmp_path / "1.parquet", "parquet") == [(label, b"photo", None, None)]
    if not isinstance(value, bytes | Decimal):
        assert told(write_jsonl([row], tmp_path / "1"), "jsonl") == [(label, b"photo", None, None)]
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "1.jpg").write_bytes(b"photo")
        (tmp_path / "photos" / "1.json").write_text(json.dumps(row))
        archive = gnu_tar("-C", "photos", ".")(tmp_path / "photos", tmp_path / "1")
        for place, layout in ((tmp_path / "photos", "folders"), (archive, "webdataset")):
            assert told(place, layout) == [(label, b"photo", None, None)]


def test_addresses_of_photos_in_tables(tmp_path):
    """Relative, absolute, URLs, and photos in a zip beside the table or elsewhere; on other places than a disk too."""
    folder = tmp_path / "a::b # 100%"
    folder.mkdir()
    (folder / "1::2.jpg").write_bytes(b"photo")
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("anna/1.jpg", b"photo")
    shutil.copy(folder / "photos.zip", tmp_path)
    fsspec.filesystem("memory").pipe_file("/addresses/1.jpg", b"photo")
    paths = [
        "1::2.jpg",
        "./x/../1::2.jpg",
        str(folder / "1::2.jpg"),
        "memory://addresses/1.jpg",
        "zip://anna/1.jpg::" + str(tmp_path / "photos.zip"),
        "zip://anna/1.jpg::../photos.zip",
    ]
    table = write_jsonl([{"path": path} for path in paths], folder / "table")
    assert [row[1] for row in told(table, "jsonl")] == [b"photo"] * len(paths)
    assert told(f"zip://::{tmp_path / 'photos.zip'}", "folders") == [("anna", b"photo", None, None)]
    fsspec.filesystem("memory").pipe_file("/addresses/table.csv", b"path,person\n1.jpg,anna\n")
    assert told("memory://addresses/table.csv", "csv") == [("anna", b"photo", None, None)]


BAD = [None, "", 5, math.nan, True, ["1.jpg"], {"path": "1.jpg"}]
BAD += ["gone.jpg", "nope://1.jpg", "zip://1.jpg", "pipe.jpg", ".", "\0"]


def test_a_bad_row_is_a_missing_photo_and_the_others_stay(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    save(portrait(), tmp_path / "1.png")
    rows = [{"path": path, "person": repr(path), "caption": "", "licence": ""} for path in (*BAD, "1.png")]
    texts = [row for row in rows if isinstance(row["path"], str)]
    for table in (write_jsonl(rows, tmp_path / "table"), write_csv()(texts, tmp_path / "table")):
        manifest = make_set(table, tmp_path / f"{table.suffix} set", layout=table.suffix[1:])
        fates = {row["label"]: row["dropped"] for row in index(tmp_path / f"{table.suffix} set").to_pylist()}
        assert fates.pop("'1.png'") is None
        assert set(fates.values()) == {"missing"}
        assert manifest.counts["inputs"] == len(rows if table.suffix == ".jsonl" else texts)


def test_lines_that_are_no_row_are_missing_photos(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"photo")
    good = '{"path": "1.jpg"}'
    (tmp_path / "table.jsonl").write_text(f"{{\n[1]\n\n{good}\n{'[' * 100_000}\n{good}")
    found = [row[1] for row in told(tmp_path / "table.jsonl", "jsonl")]
    assert found == ["missing", "missing", b"photo", "missing", b"photo"]
    (tmp_path / "table.csv").write_text(f"path,caption\n1.jpg,{'x' * 200_000}\n1.jpg,\nshort\n1.jpg,a,b,c\n")
    found = [row[1] for row in told(tmp_path / "table.csv", "csv")]
    assert found == ["missing", b"photo", "missing", b"photo"]


def test_windows_tables_and_names(tmp_path):
    """Excel's code page, and a zip with the other slash."""
    (tmp_path / "Zo\u00eb.jpg").write_bytes(b"photo")
    (tmp_path / "table.csv").write_bytes("path;person\r\nZo\u00eb.jpg;Zo\u00eb\r\n".encode("cp1252"))
    assert told(tmp_path / "table.csv", "csv") == [("Zo\u00eb", b"photo", None, None)]
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        info = zipfile.ZipInfo("photos/1.jpg")
        info.filename, info.create_system = "photos\\Zo\u00eb\\1.jpg", 0
        archive.writestr(info, b"photo")
        archive.writestr("photos/anna/1.jpg", b"photo")
    assert [row[0] for row in told(tmp_path / "photos.zip", "webdataset")] == ["Zo\u00eb", "anna"]


def test_what_is_no_table_or_archive_is_our_error(tmp_path):
    for layout, suffix in (
        ("webdataset", "tar"),
        ("webdataset", "zip"),
        ("csv", "csv"),
        ("jsonl", "jsonl"),
        ("parquet", "parquet"),
    ):
        for data in (b"\xff\xfe nothing of the kind" * 100, b"a,b\n1,2\n", gzip.compress(bytes(5000))):
            (tmp_path / f"photos.{suffix}").write_bytes(data)
            with pytest.raises(DataError, match=f"photos.{suffix}"):
                told(tmp_path / f"photos.{suffix}", layout)
    (tmp_path / "photos.jpg").write_bytes(b"photo")
    with pytest.raises(DataError, match="neither a folder nor a tar or zip"):
        told(tmp_path / "photos.jpg", "folders")
