"""Whatever lies in a folder of photos: the run goes on, and the manifest counts it by reason."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image, ImageOps

from idgen.errors import DataError
from idgen.faces.image_file import MAX_BYTES

from .sets import assert_nothing_is_missing, blank, fates, index, make_set, noise, portrait, save


def test_every_input_is_counted_by_reason(tmp_path):
    photos = tmp_path / "photos"
    good = save(portrait(), photos / "Zoë O'Neil 3" / "мой портрет № 1.png")
    save(ImageOps.mirror(portrait()), photos / "Zoë O'Neil 3" / "two.jpg", quality=90)
    (photos / "one photo").mkdir()
    (photos / "one photo" / "copy.png").write_bytes(good.read_bytes())
    save(blank(), photos / "nobody" / "nobody.png")
    (photos / "nobody" / "text.jpg").write_text("this is not a picture")
    (photos / "nobody" / "empty.jpg").write_bytes(b"")
    (photos / "nobody" / "cut.png").write_bytes(good.read_bytes()[:4000])
    (photos / "nobody" / "caption.txt").write_text("of a photo that is gone")
    (photos / "nobody" / "gone.jpg").symlink_to(photos / "not there.jpg")
    (photos / "empty").mkdir()
    (photos / "loop" / "deep").mkdir(parents=True)
    (photos / "loop" / "deep" / "up").symlink_to(photos / "loop", target_is_directory=True)
    save(portrait(40), photos / "small" / "small.png")
    save(noise(20_000, 4), photos / "wide" / "strip.png")
    save(Image.new("L", (20_000, 5_000)), photos / "wide" / "bomb.png")
    save(portrait(), photos / ".hidden" / "hidden.png")
    os.mkfifo(photos / "nobody" / "pipe.jpg")

    manifest = make_set(photos, tmp_path / "set", min_face=30.0)
    assert fates(tmp_path / "set") == {
        "Zoë O'Neil 3/two.jpg": "usable",
        "Zoë O'Neil 3/мой портрет № 1.png": "usable",
        "empty": "empty-folder",
        "loop/deep/up": "symlink-loop",
        "nobody/caption.txt": "sidecar-without-photo",
        "nobody/cut.png": "unreadable",
        "nobody/empty.jpg": "unreadable",
        "nobody/gone.jpg": "missing",
        "nobody/nobody.png": "no-face",
        "nobody/pipe.jpg": "missing",
        "nobody/text.jpg": "unreadable",
        "one photo/copy.png": "duplicate",
        "small/small.png": "small-face",
        "wide/bomb.png": "too-large",
        "wide/strip.png": "no-face",
    }
    assert_nothing_is_missing(manifest, tmp_path / "set", 15)
    assert manifest.dropped == {
        "unreadable": 3,
        "missing": 2,
        "no-face": 2,
        "empty-folder": 1,
        "sidecar-without-photo": 1,
        "small-face": 1,
        "symlink-loop": 1,
        "too-large": 1,
    }
    assert manifest.aside == {"duplicate": 1}
    assert manifest.counts["people"] == 1
    assert manifest.counts["pairs"] == 2


def test_a_picture_as_wide_as_may_be_opened(tmp_path):
    """20,000 pixels wide, with the face at its end."""
    wide = Image.new("RGB", (20_000, 2_000), "grey")
    wide.paste(portrait(2_000), (18_000, 0))
    save(wide, tmp_path / "photos" / "anna" / "wide.jpg", quality=90)
    make_set(tmp_path / "photos", tmp_path / "set")
    (row,) = index(tmp_path / "set").to_pylist()
    assert row["dropped"] is None
    assert row["box"][0] > 18_000


def test_names_that_are_no_text_stay_apart(tmp_path):
    """Bytes that are not UTF-8, which old archives hold: two people, not one."""
    for i, name in enumerate((b"\xe9ric", b"\xe8ric")):
        folder = os.path.join(os.fsencode(tmp_path), b"photos", name)
        os.makedirs(folder)
        portrait(shift=4 * i).save(os.fsdecode(os.path.join(folder, b"\xff.png")), "PNG")
    manifest = make_set(tmp_path / "photos", tmp_path / "set")
    assert manifest.counts["people"] == 2
    assert sorted(index(tmp_path / "set")["person"].to_pylist()) == ["\\udce8ric", "\\udce9ric"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "TGA"])
def test_no_damage_stops_a_run(form, tmp_path):
    """Pillow's decoders raise whatever they stumble over."""
    buffer = io.BytesIO()
    noise(48, 48).save(buffer, form)
    whole = buffer.getvalue()
    draw = random.Random(form)
    for i in range(60):
        damaged = bytearray(whole)
        for _ in range(draw.randrange(1, 30)):
            damaged[draw.randrange(min(len(damaged), 200 if i % 2 else len(damaged)))] = draw.randrange(256)
        path = tmp_path / "photos" / f"{i:02d}.{form.lower()}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(damaged))
    save(portrait(), tmp_path / "photos" / "good.png")
    manifest = make_set(tmp_path / "photos", tmp_path / "set", layout="flat")
    assert manifest.counts["usable"] == 1
    assert_nothing_is_missing(manifest, tmp_path / "set", 61)


def test_a_folder_that_may_not_be_opened_is_counted(tmp_path, monkeypatch):
    save(portrait(), tmp_path / "photos" / "anna" / "1.png")
    (tmp_path / "photos" / "locked").mkdir()
    ls = LocalFileSystem.ls

    def refusing(self, path, *args, **kwargs):  # root may open every folder, so the test cannot lock one
        if str(path).rstrip("/").endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return ls(self, path, *args, **kwargs)

    monkeypatch.setattr(LocalFileSystem, "ls", refusing)
    manifest = make_set(tmp_path / "photos", tmp_path / "set")
    assert fates(tmp_path / "set") == {"anna/1.png": "usable", "locked": "unreadable-folder"}
    assert_nothing_is_missing(manifest, tmp_path / "set", 2)


def test_a_person_with_one_photo_is_usable_and_has_no_pair(tmp_path):
    save(portrait(), tmp_path / "photos" / "anna" / "1.png")
    manifest = make_set(tmp_path / "photos", tmp_path / "set")
    assert fates(tmp_path / "set") == {"anna/1.png": "usable"}
    assert (manifest.counts["people"], manifest.counts["people_with_pairs"], manifest.counts["pairs"]) == (1, 0, 0)


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path):
    save(portrait(), tmp_path / "photos" / "anna" / "1.png")
    with (tmp_path / "photos" / "anna" / "film.mp4").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    make_set(tmp_path / "photos", tmp_path / "set")
    assert fates(tmp_path / "set") == {"anna/1.png": "usable", "anna/film.mp4": "too-large"}


def test_damaged_sidecars_do_not_lose_the_photo(tmp_path):
    folder = tmp_path / "photos" / "anna"
    for i, text in enumerate(("{", "[1]", '{"person": "\\ud800", "caption": "\\udfff"}', "[" * 100_000, "{}")):
        save(portrait(shift=i * 4), folder / f"{i}.png")
        (folder / f"{i}.json").write_text(text)
    save(portrait(shift=24), folder / "5.png")
    (folder / "5.txt").write_bytes(b"\xff\xfe\x00")
    manifest = make_set(tmp_path / "photos", tmp_path / "set")
    assert manifest.counts["photos"] == 6
    assert not manifest.dropped


def test_a_folder_without_any_face_is_a_set_without_people(tmp_path):
    save(blank(), tmp_path / "photos" / "anna" / "1.png")
    manifest = make_set(tmp_path / "photos", tmp_path / "set")
    assert manifest.counts["people"] == 0
    assert manifest.dropped == {"no-face": 1}


@pytest.mark.parametrize("layout", ["folders", "flat", "webdataset", "parquet", "csv"])
def test_nothing_to_read_is_our_error_and_leaves_a_finished_set_alone(layout, tmp_path):
    save(portrait(), tmp_path / "photos" / "anna" / "1.png")
    make_set(tmp_path / "photos", tmp_path / "set")
    before = {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="does not exist"):
        make_set(tmp_path / "phtos", tmp_path / "set", layout=layout)
    assert before == {path: path.read_bytes() for path in (tmp_path / "set").rglob("*") if path.is_file()}
    (tmp_path / "none").mkdir()
    if layout in ("webdataset", "parquet", "csv"):
        with pytest.raises(DataError, match=r"has no .* file, which the layout"):
            make_set(tmp_path / "none", tmp_path / "other", layout=layout)
    else:
        manifest = make_set(tmp_path / "none", tmp_path / "other", layout=layout)
        assert manifest.dropped == {"empty-folder": 1}


@pytest.mark.parametrize("output", ["photos", "photos/anna/set", "photos/../photos/set"])
def test_a_set_among_its_own_photos_is_refused(output, tmp_path):
    save(portrait(), tmp_path / "photos" / "anna" / "1.png")
    with pytest.raises(DataError, match="among the photos"):
        make_set(tmp_path / "photos", tmp_path / output)


def test_links_do_not_lead_to_a_set_either(tmp_path: Path):
    save(portrait(), tmp_path / "photos" / "anna" / "1.png")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    with pytest.raises(DataError, match="among the photos"):
        make_set(tmp_path / "photos", tmp_path / "link" / "set")
