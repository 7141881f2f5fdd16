"""Protected photos: a bounded change that encoders no longer recognise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idgen.cli import main
from idgen.errors import ProvenanceError
from idgen.faces import DlibEncoder, EncoderStatistics, Face, FaceAnalyzer, open_encoder
from idgen.losses import FaceEmbedder
from idgen.losses.embedders import open_embedder
from idgen.provenance.protection import protect
from idgen.provenance.protection_report import measure_protection, measure_visibility
from idgen.provenance.protection_settings import ProtectionSettings

SETTINGS = ProtectionSettings(strength=8, steps=20)


@pytest.fixture(scope="module")
def face(analyzer: FaceAnalyzer, astronaut: np.ndarray) -> Face:
    return analyzer.find(astronaut)


@pytest.fixture(scope="module")
def embedder() -> FaceEmbedder:
    return FaceEmbedder.dlib()


@pytest.fixture(scope="module")
def protected(astronaut: np.ndarray, face: Face, embedder: FaceEmbedder) -> np.ndarray:
    return protect(astronaut, face.landmarks, [embedder], SETTINGS)


def test_no_value_changes_by_more_than_the_strength(astronaut: np.ndarray, protected: np.ndarray) -> None:
    change = np.abs(protected.astype(int) - astronaut)
    assert 4 <= change.max() <= SETTINGS.strength
    assert not change[300:].any()  # far from the face


def test_the_person_is_not_recognised_any_more_also_after_edits(
    astronaut: np.ndarray, protected: np.ndarray, analyzer: FaceAnalyzer
) -> None:
    rows = measure_protection(astronaut, protected, analyzer.detector, [analyzer.encoder])
    threshold = EncoderStatistics.of(DlibEncoder.name).threshold(1e-3)
    assert len(rows) == 6
    for row in rows:
        assert row.threshold == threshold
        assert row.before > threshold > row.after, row


def test_the_change_also_acts_on_an_encoder_that_was_not_attacked(
    shared: Path, astronaut: np.ndarray, protected: np.ndarray, analyzer: FaceAnalyzer
) -> None:
    unseen = open_encoder(f"imagenet:{shared / 'models' / 'mobilefacenet_eval.onnx'}")
    row = measure_protection(astronaut, protected, analyzer.detector, [unseen])[0]
    assert row.before > 0.99
    assert row.after < 0.8


def test_strength_zero_is_the_photo(astronaut: np.ndarray, face: Face, embedder: FaceEmbedder) -> None:
    unchanged = protect(astronaut, face.landmarks, [embedder], ProtectionSettings(strength=0))
    assert np.array_equal(unchanged, astronaut)
    assert measure_visibility(astronaut, unchanged) == (float("inf"), 1.0, 0)


def test_the_seed_decides_and_the_mask_limits(astronaut: np.ndarray, face: Face, embedder: FaceEmbedder) -> None:
    mask = np.zeros(astronaut.shape[:2])
    mask[:, : round(face.landmarks[2, 0])] = 1
    settings = ProtectionSettings(steps=2)
    first, again = (protect(astronaut, face.landmarks, [embedder], settings, mask) for _ in range(2))
    other = protect(astronaut, face.landmarks, [embedder], ProtectionSettings(steps=2, seed=1), mask)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (first != astronaut).any()
    assert np.array_equal(first[mask == 0], astronaut[mask == 0])


def test_a_face_at_the_edge_of_the_photo(astronaut: np.ndarray, face: Face, embedder: FaceEmbedder) -> None:
    left = round(face.landmarks[:, 0].min()) - 5
    part = np.ascontiguousarray(astronaut[:, left:])
    changed = protect(part, face.landmarks - np.array([left, 0]), [embedder], ProtectionSettings(steps=2))
    assert changed.shape == part.shape
    assert (changed != part).any()


@pytest.mark.parametrize(("wrong", "message"), [({"strength": -1}, "strength"), ({"steps": 0}, "steps")])
def test_settings_out_of_range_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ProvenanceError, match=f"{message} must be"):
        ProtectionSettings(**wrong)


def test_missing_encoders_and_wrong_masks_are_refused(
    astronaut: np.ndarray, face: Face, embedder: FaceEmbedder
) -> None:
    with pytest.raises(ProvenanceError, match="at least one face encoder"):
        protect(astronaut, face.landmarks, [])
    with pytest.raises(ProvenanceError, match=r"The mask has the shape \(4, 4\)"):
        protect(astronaut, face.landmarks, [embedder], SETTINGS, np.ones((4, 4)))
    with pytest.raises(ProvenanceError, match="values from 0 to 1, got 255 to 255"):
        protect(astronaut, face.landmarks, [embedder], SETTINGS, np.full(astronaut.shape[:2], 255))


def test_the_command_writes_the_photo_and_prints_the_report(
    astronaut: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(astronaut).save(tmp_path / "photo.png")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.argv", ["idgen", "protect", str(tmp_path / "photo.png"), "--steps", "5", "--report"])
    monkeypatch.chdir(tmp_path)
    main()
    printed = capsys.readouterr()
    assert "JPEG 75" in printed.out
    assert "diffusion pass" in printed.out
    assert "is at hand" in printed.err  # no second encoder without a download
    assert "PSNR" in printed.err
    changed = np.asarray(Image.open(tmp_path / "protected.png")).astype(int)
    assert 0 < np.abs(changed - astronaut).max() <= 8


def test_encoders_from_onnx_files_embed_as_in_evaluation(shared: Path, astronaut: np.ndarray, face: Face) -> None:
    name = f"imagenet:{shared / 'models' / 'mobilefacenet_eval.onnx'}"
    embedder, encoder = open_embedder(name), open_encoder(name)
    image = torch.tensor(astronaut).permute(2, 0, 1)[None].float() / 255
    found = embedder(image, torch.from_numpy(face.landmarks)[None])[0].numpy()
    expected = encoder.embed(encoder.crop(astronaut, face.landmarks)[None])[0]
    assert embedder.name == encoder.name
    assert found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected)) > 0.9999
