"""One shard: webdataset's form, what its index says of each face, and that a finished one is left alone."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

from idgen.data.index import index_metadata, read_index
from idgen.data.quality import pose, sharpness, thumbnail
from idgen.data.shard import InputShard, prepare_shard
from idgen.data.sources import find_sources
from idgen.errors import IdgenError
from idgen.faces import FaceAnalyzer

from .sets import make_set, portrait, save


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody alone, and twice in one picture, with a caption."""
    folder = tmp_path_factory.mktemp("photos")
    save(portrait(200), folder / "anna" / "1.jpg", quality=95)
    both = Image.new("RGB", (400, 200), "grey")
    both.paste(portrait(200), (0, 0))
    both.paste(portrait(160), (220, 20))
    save(both, folder / "anna" / "2.png")
    (folder / "anna" / "2.txt").write_text("a photo of <id>")
    return folder


@pytest.fixture(scope="module")
def shard(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("set")
    make_set(photos, output)
    return output / "000000"


def test_members_stand_together_by_key_as_webdataset_reads_them(photos, shard, analyzer: FaceAnalyzer):
    with tarfile.open(shard.with_suffix(".tar")) as tar:
        members = [(member.name.partition("."), tar.extractfile(member)) for member in tar]
        samples = [
            {suffix: file.read() for (_, _, suffix), file in group if file}
            for _, group in itertools.groupby(members, lambda member: member[0][0])
        ]
    assert [sorted(sample) for sample in samples] == [
        ["0.npy", "0.png", "jpg", "json"],
        ["0.npy", "0.png", "1.npy", "1.png", "json", "png"],
    ]
    for sample, file in zip(samples, ("1.jpg", "2.png"), strict=True):
        data = sample["jpg" if file.endswith("jpg") else "png"]
        assert data == (photos / "anna" / file).read_bytes()  # as it came
        faces = analyzer.analyze(photos / "anna" / file)
        told = json.loads(sample["json"])
        assert len(faces) == len(told)
        for i, (face, row) in enumerate(zip(faces, told, strict=True)):
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(sample[f"{i}.png"]))), face.crop)
            np.testing.assert_allclose(np.load(io.BytesIO(sample[f"{i}.npy"])), face.embedding, atol=1e-5)
            assert row["sha256"] == hashlib.sha256(data).hexdigest()
            assert row["box"] == face.box.tolist()


def test_the_index_says_where_and_what_each_face_is(photos, shard, analyzer: FaceAnalyzer):
    table = read_index(str(shard.with_suffix(".parquet")))
    tar = shard.with_suffix(".tar").read_bytes()
    for row in table.to_pylist():
        photo = photos / row["source"]
        assert tar[row["offset"] : row["offset"] + row["length"]] == photo.read_bytes()
        face = analyzer.analyze(photo)[row["face"]]
        assert row["landmarks"] == face.landmarks.ravel().tolist()
        assert row["score"] == face.score
        assert row["norm"] == pytest.approx(np.linalg.norm(face.embedding), rel=1e-5)
        assert row["sharpness"] == sharpness(face.crop)
        assert (row["yaw"], row["roll"]) == pose(face.landmarks)
        assert row["caption"] == ("a photo of <id>" if photo.name == "2.png" else None)
    metadata = index_metadata(str(shard.with_suffix(".parquet")))
    assert metadata["tar_sha256"] == hashlib.sha256(tar).hexdigest()
    manifest = json.loads((shard.parent / "manifest.json").read_text())
    assert manifest["shards"] == {"000000": metadata["tar_sha256"]}
    assert (manifest["encoder"], manifest["dim"]) == (analyzer.encoder.name, analyzer.encoder.dim)


class Idle(FaceAnalyzer):
    """Fails when it is asked anything."""

    def analyze_batch(self, photos, landmarks=None):
        raise AssertionError("a finished shard was made again")


def test_a_finished_shard_is_skipped_unless_its_input_or_a_setting_changed(photos, tmp_path):
    def made(analyzer: FaceAnalyzer, **options: Any) -> str:
        return prepare_shard(InputShard(7, tuple(sources)), str(tmp_path), analyzer, **options)

    sources = list(find_sources(str(photos), "folders"))
    assert made(FaceAnalyzer()) == made(Idle()) == "000007"
    table = pq.read_table(tmp_path / "000007.parquet")
    with pytest.raises(AssertionError, match="made again"):
        made(Idle(), min_face=30.0)
    assert pq.read_table(tmp_path / "000007.parquet").equals(table)  # what failed changed nothing
    sources.pop()
    with pytest.raises(AssertionError, match="made again"):
        made(Idle())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000007.parquet", "000007.tar"]


def test_a_batch_is_embedded_at_once(photos, tmp_path, monkeypatch):
    analyzer, calls = FaceAnalyzer(), []
    embed = analyzer.encoder.embed
    monkeypatch.setattr(analyzer.encoder, "embed", lambda crops: calls.append(len(crops)) or embed(crops))
    prepare_shard(InputShard(0, tuple(find_sources(str(photos), "folders"))), str(tmp_path), analyzer)
    assert calls == [3]


def test_an_output_that_is_a_file_is_our_error(photos, tmp_path):
    (tmp_path / "set").write_text("")
    with pytest.raises(IdgenError, match="could not be written"):
        make_set(photos, tmp_path / "set")


def test_quality():
    crop = np.asarray(portrait(112))
    blurred = np.asarray(portrait(112).filter(ImageFilter.GaussianBlur(2)))
    assert sharpness(blurred) < 0.2 * sharpness(crop)
    assert np.abs(thumbnail(crop).astype(int) - thumbnail(blurred)).max() < 12
    frontal = np.array([[30.0, 40], [70, 40], [50, 60], [35, 80], [65, 80]])
    assert pose(frontal) == pytest.approx((0, 0))
    turned = frontal.copy()
    turned[2, 0] += 10  # half of the way from the middle of the eyes to an eye: a sine of a half
    assert pose(turned) == pytest.approx((30, 0))
    angle = np.radians(20)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert pose(turned @ rotation) == pytest.approx((30, 20))
