"""The same photos in every layout, from a disk and from another place, by every engine: the same people."""

from __future__ import annotations

import csv
import json
import re
import shutil
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from idgen.data.bank import IdentityBank
from idgen.data.manifest import Manifest
from idgen.data.set_report import write_report
from idgen.errors import DataError
from idgen.faces import EncoderStatistics
from idgen.files import LOCK

from .sets import assert_nothing_is_missing, contents, fates, index, make_set, portrait, save

CAPTION = "a photo of <id>, smiling – très bien"
DEEP = {"caption": CAPTION, "group": "30 to 40"}
TOLD = ("source", "label", "person", "group", "caption", "licence", "box", "dropped", "aside", "sha256")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos of two people with what may stand beside them; Zoë's name as macOS writes it."""
    folder = tmp_path_factory.mktemp("photos")
    save(portrait(), folder / "anna" / "1.png")
    save(portrait().rotate(12), folder / "anna" / "deep er" / "2.jpg", quality=60)
    (folder / "anna" / "1.txt").write_text(CAPTION + "\n", encoding="utf-8")
    (folder / "anna" / "1.json").write_text(json.dumps({"group": DEEP["group"]}))
    (folder / "anna" / "deep er" / "2.json").write_text(json.dumps(DEEP | {"license": "CC BY 4.0"}))
    save(portrait().convert("L"), folder / "Zoe\u0308" / "1.webp", lossless=True)
    return folder


def told(output: Path | str) -> list[dict[str, object]]:
    rows = [{name: row[name] for name in TOLD} for row in index(output).to_pylist()]
    return sorted(rows, key=lambda row: row["source"])


def people_of(output: Path) -> tuple[list[str], list[str | None]]:
    """The people of a set and their groups, of all splits."""
    table = pq.read_table(output / "bank" / "people.parquet").sort_by("person")
    return table["person"].to_pylist(), table["group"].to_pylist()


@pytest.fixture(scope="module")
def folders(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What the layout "folders" makes of them."""
    output = tmp_path_factory.mktemp("folders")
    make_set(photos, output)
    assert [*zip(*people_of(output), strict=True)] == [("Zo\u00eb", None), ("anna", "30 to 40")]
    return told(output)


def test_folders_with_captions_and_licences(folders):
    anna, deep, zoe = folders[1], folders[2], folders[0]
    assert [row["source"] for row in folders] == ["Zo\u00eb/1.webp", "anna/1.png", "anna/deep er/2.jpg"]
    assert (anna["label"], deep["label"], zoe["label"]) == ("anna", "anna", "Zo\u00eb")
    assert anna["caption"] == deep["caption"] == CAPTION
    assert (anna["licence"], deep["licence"]) == (None, "CC BY 4.0")
    assert (anna["group"], deep["group"], zoe["group"]) == ("30 to 40", "30 to 40", None)
    assert all(row["person"] == row["label"] for row in folders)


def test_a_tar_and_a_zip(photos, folders, tmp_path):
    shutil.make_archive(str(tmp_path / "photos"), "zip", photos)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, ".")
    for suffix in ("zip", "tar"):
        make_set(tmp_path / f"photos.{suffix}", tmp_path / suffix, layout="webdataset")
        assert told(tmp_path / suffix) == folders


def records(photos: Path) -> list[dict[str, str | None]]:
    return [
        {
            "path": str(path.relative_to(photos)),
            "person": path.relative_to(photos).parts[0],
            "caption": CAPTION if path.parts[-2] != "Zoe\u0308" else None,
            "licence": "CC BY 4.0" if "deep" in str(path) else None,
            "group": "30 to 40" if "anna" in str(path.relative_to(photos)) else None,
        }
        for path in sorted(photos.rglob("*"))
        if path.suffix in (".png", ".jpg", ".webp")
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv(encoding, photos, folders, tmp_path):
    shutil.copytree(photos, tmp_path / "in")
    with (tmp_path / "in" / "photos.csv").open("w", newline="", encoding=encoding) as file:
        rows = csv.DictWriter(file, ["path", "person", "group", "caption", "licence"])
        rows.writeheader()
        rows.writerows(records(photos))
        file.write("\nanna/gone.png,anna,,,\n,nobody,,,\nshort\n")
    manifest = make_set(tmp_path / "in" / "photos.csv", tmp_path / "set", layout="csv")
    assert told(tmp_path / "set")[: len(folders)] != []
    assert [row for row in told(tmp_path / "set") if row["dropped"] is None] == folders
    assert manifest.dropped == {"missing": 3}
    assert_nothing_is_missing(manifest, tmp_path / "set", 6)


@pytest.mark.parametrize("kind", ["path", "bytes", "image"])
def test_parquet(kind, photos, folders, tmp_path):
    """With paths, with bytes, and with the image columns of Hugging Face's sets; several row groups."""
    shutil.copytree(photos, tmp_path / "in")
    rows = [
        row if kind == "path" else row | {"image": (photos / str(row["path"])).read_bytes()} for row in records(photos)
    ]
    if kind == "image":
        rows = [row | {"image": {"bytes": row["image"], "path": row["path"]}} for row in rows]
        rows.append({"path": "gone.png", "person": "anna", "image": {"bytes": None, "path": "gone.png"}})
    else:
        rows.append({"path": "gone.png", "person": "anna", "image": None})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "photos.parquet", row_group_size=2)
    manifest = make_set(tmp_path / "in", tmp_path / "set", layout="parquet")
    assert [row for row in told(tmp_path / "set") if row["dropped"] is None] == folders
    assert manifest.dropped == {"missing": 1}


@pytest.mark.parametrize("layout", ["webdataset", "csv", "parquet"])
def test_tables_that_are_none_are_our_error(layout, tmp_path):
    suffix = {"webdataset": "tar"}.get(layout, layout)
    (tmp_path / f"photos.{suffix}").write_bytes(b"\xff\xfe nothing of the kind" * 100)
    with pytest.raises(DataError, match=f"photos.{suffix}"):
        make_set(tmp_path / f"photos.{suffix}", tmp_path / "set", layout=layout)
    (tmp_path / f"photos.{suffix}").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=f"photos.{suffix}"):
        make_set(tmp_path / f"photos.{suffix}", tmp_path / "set", layout=layout)


def test_a_tar_that_is_cut_is_our_error(photos, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos / "anna" / "1.png", "anna/1.png")
        tar.add(photos / "anna" / "1.png", "anna/2.png")
    data = (tmp_path / "photos.tar").read_bytes()
    (tmp_path / "photos.tar").write_bytes(data[: len(data) // 3])
    with pytest.raises(DataError, match=r"photos\.tar"):
        make_set(tmp_path / "photos.tar", tmp_path / "set", layout="webdataset")


def test_flat_finds_the_people(photos, tmp_path):
    manifest = make_set(photos, tmp_path / "set", layout="flat")
    people = {row["source"]: row["person"] for row in index(tmp_path / "set").to_pylist()}
    assert manifest.counts["named"] == 0
    assert people["anna/1.png"] == people["anna/deep er/2.jpg"] == people["Zo\u00eb/1.webp"]
    assert manifest.counts["people"] == 1
    assert manifest.thresholds["same_person"] == EncoderStatistics.of("dlib-resnet-v1").threshold(1e-4)


def test_other_places_than_a_disk(photos, folders, tmp_path):
    """fsspec's file system in memory stands for an object store: input, output, report and bank."""
    memory = fsspec.filesystem("memory")
    memory.put(f"{photos}/", "/in/", recursive=True)
    make_set("memory://in", "memory://out/set", shard_size=2)
    assert told("memory://out/set") == folders
    make_set(photos, tmp_path / "set", shard_size=2)
    local = contents(tmp_path / "set")
    for name in local:
        if not name.endswith("parquet") and name not in ("manifest.json", LOCK):  # the places of the photos differ
            assert memory.cat_file(f"/out/set/{name}") == local[name]
    assert Manifest.open("memory://out/set").counts == Manifest.open(str(tmp_path / "set")).counts
    assert len(IdentityBank("memory://out/set")) == 2
    assert write_report("memory://out/set", Manifest.open("memory://out/set")) == "memory://out/set/report.html"
    before = memory.cat_file("/out/set/000000.parquet")
    make_set("memory://in", "memory://out/set", shard_size=2)
    assert memory.cat_file("/out/set/000000.parquet") == before
    with pytest.raises(DataError, match="among the photos"):
        make_set("memory://in", "memory://in/anna/set")


def test_the_report_shows_every_reason_and_every_count(tmp_path):
    save(portrait(), tmp_path / "photos" / "anna" / "<b>1</b>.png")
    save(portrait().rotate(12), tmp_path / "photos" / "anna" / "2.png")
    save(portrait(), tmp_path / "photos" / "anna" / "3.png")
    save(Image.new("RGB", (9, 9)), tmp_path / "photos" / "ben" / "1.png")
    (tmp_path / "photos" / "ben" / "2.png").write_text("")
    (tmp_path / "photos" / "carl").mkdir()
    manifest = make_set(tmp_path / "photos", tmp_path / "set")
    assert len(fates(tmp_path / "set")) == 6
    page = Path(write_report(str(tmp_path / "set"), manifest)).read_text(encoding="utf-8")
    assert "<b>1</b>" not in page
    assert str(tmp_path) not in page
    for reason, count in (manifest.dropped | manifest.aside).items():
        row = rf'<tr><td>{reason}( <span[^<]*</span>)?</td><td class="n">{count}</td><td class="soft">[^<]+</td>'
        assert re.search(row, page), reason
    for count in manifest.counts.values():
        assert f'<td class="n">{count}</td>' in page or f">{count} have names" in page
    for split in manifest.splits.values():
        assert "".join(f'<td class="n">{split[name]}</td>' for name in ("people", "usable")) in page
    assert "data:image/jpeg" in page  # a face that was set aside
    assert page.count("<figure>") >= 4
