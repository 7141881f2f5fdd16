"""The insightface backend, with a pack of random networks: it finds and embeds what insightface itself does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idgen import FaceAnalyzer, enroll
from idgen.errors import CheckpointError, EncoderMismatchError
from idgen.faces.insightface import InsightFaceDetector, InsightFaceEncoder, InsightFacePack

from .onnx_pack import EMBEDDING_DIM, write_pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("packs") / "random_l")


@pytest.fixture(scope="module")
def pack(folder: Path) -> InsightFacePack:
    return InsightFacePack(folder)


@pytest.fixture
def photo() -> np.ndarray:
    photo = np.random.default_rng(1).integers(0, 60, (640, 640, 3), dtype=np.uint8)
    photo[200:248, 320:368] = [250, 20, 80]
    return photo


def test_agrees_with_insightface(pack: InsightFacePack, folder: Path, photo: np.ndarray) -> None:
    from insightface.app import FaceAnalysis

    app = FaceAnalysis(
        name=str(folder), allowed_modules=["detection", "recognition"], providers=["CPUExecutionProvider"]
    )
    app.prepare(ctx_id=-1, det_size=(640, 640))
    theirs: Any = app.get(photo[..., ::-1])
    ours = FaceAnalyzer(InsightFaceDetector(pack), InsightFaceEncoder(pack)).analyze(photo)
    assert len(ours) == len(theirs) > 0
    for face, other in zip(ours, sorted(theirs, key=lambda f: -np.prod(f.bbox[2:] - f.bbox[:2])), strict=True):
        np.testing.assert_allclose(face.box, other.bbox, rtol=1e-6)
        np.testing.assert_allclose(face.landmarks, other.kps, rtol=1e-6)
        np.testing.assert_allclose(face.embedding, other.embedding, rtol=1e-5, atol=1e-4)
        assert face.score == pytest.approx(other.det_score)
        assert 180 < face.box[1::2].mean() < 268


def test_raw_and_normalised(pack: InsightFacePack, photo: np.ndarray) -> None:
    identity = enroll(photo, FaceAnalyzer(InsightFaceDetector(pack), InsightFaceEncoder(pack)), face="largest")
    assert identity.encoder == "insightface/random_l"
    assert identity.dim == EMBEDDING_DIM
    assert identity.embedding().norm() > 5
    assert identity.embedding(normalised=True).norm() == pytest.approx(1)


def test_nested_folder(tmp_path: Path, photo: np.ndarray) -> None:
    """As `antelopev2.zip` unpacks, and where insightface keeps its downloads."""
    write_pack(tmp_path / "models" / "antelopev2" / "antelopev2")
    for pack in (
        InsightFacePack(tmp_path / "models" / "antelopev2"),
        InsightFacePack("antelopev2", root=str(tmp_path)),
    ):
        assert InsightFaceEncoder(pack).name == "insightface/antelopev2"
        assert InsightFaceDetector(pack).detect(photo)


def test_detector_and_encoder_are_separate_choices(pack: InsightFacePack, photo: np.ndarray) -> None:
    face = FaceAnalyzer(detector=InsightFaceDetector(pack)).analyze(photo)[0]
    assert face.encoder == "dlib-resnet-v1"


def test_packs_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty"):
        InsightFacePack(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="no recogniser"):
        InsightFacePack(write_pack(tmp_path / "half", recogniser=False))
    with pytest.raises(EncoderMismatchError, match="'magic'"):
        FaceAnalyzer.for_encoder("magic")
