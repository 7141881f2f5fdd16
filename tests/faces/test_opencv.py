from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idgen.errors import CheckpointError
from idgen.faces import DlibDetector
from idgen.faces.opencv import SFaceEncoder, YuNetDetector

from .onnx_pack import write_recogniser


def test_yunet_finds_what_the_default_detector_finds(shared: Path, astronaut: np.ndarray) -> None:
    (face,) = YuNetDetector(shared / "models" / "yunet.onnx").detect(astronaut)
    (default,) = DlibDetector().detect(astronaut)
    assert np.abs(face.landmarks - default.landmarks).max() < 0.1 * default.size
    assert face.score > 0.8


def test_sface_reads_rgb_crops_without_scaling(tmp_path: Path, astronaut: np.ndarray) -> None:
    """With a network of random weights, run by OpenCV and by onnxruntime."""
    import onnxruntime

    path = write_recogniser(tmp_path / "sface.onnx", SFaceEncoder.dim)
    encoder = SFaceEncoder(path)
    landmarks = DlibDetector().detect(astronaut)[0].landmarks
    crops = np.stack([encoder.crop(astronaut, landmarks), encoder.crop(astronaut[:, ::-1], landmarks)])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input": crops.transpose(0, 3, 1, 2).astype(np.float32)})
    found = encoder.embed(crops)
    assert found.shape == (2, 128)
    np.testing.assert_allclose(found, np.asarray(expected), rtol=1e-3, atol=0.1)
    assert encoder.embed(crops[:0]).shape == (0, 128)


def test_a_network_that_was_downloaded_before_opens_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tests have no access to the hub. Of several files, the newest one in float32 is opened."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--opencv--face_recognition_sface"
    snapshot = repository / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    for name in ("2020", "2021dec_int8"):
        (snapshot / f"face_recognition_sface_{name}.onnx").write_text("not opened")
    newest = write_recogniser(snapshot / "face_recognition_sface_2021dec.onnx", SFaceEncoder.dim)
    crops = np.zeros((1, 112, 112, 3), np.uint8)
    np.testing.assert_array_equal(SFaceEncoder().embed(crops), SFaceEncoder(newest).embed(crops))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file.*none\.onnx"):
        YuNetDetector(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    for kind in (YuNetDetector, SFaceEncoder):
        with pytest.raises(CheckpointError, match="could not open"):
            kind(tmp_path / "text.onnx")
    with pytest.raises(CheckpointError, match="neither a file nor a hub repository"):
        YuNetDetector("nobody/no-such-repository")
