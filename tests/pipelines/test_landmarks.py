"""`prepare_landmarks`: from a photo, from faces, from points, at the size of the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idgen.errors import ImageError, NoFaceError
from idgen.faces import DlibEncoder, FaceAnalyzer, draw_keypoints
from tests.components import make_adapter, make_pipeline


@pytest.fixture(scope="module")
def pipe() -> Any:
    pipe = make_pipeline(controlnet=True)
    pipe.load_id_adapter(make_adapter(pipe.unet, encoder=DlibEncoder.name, embedding_dim=128))
    return pipe


def test_a_photo_is_fitted_into_the_picture(pipe: Any, astronaut: np.ndarray) -> None:
    face = FaceAnalyzer().find(astronaut)
    side = astronaut.shape[0]  # 512 square
    found = pipe.prepare_landmarks(astronaut, (768, 512))
    assert found.size == (768, 512)
    assert (np.asarray(found) == draw_keypoints(face.landmarks * 512 / side + [128, 0], (768, 512))).all()


def test_its_shape_is_kept_at_the_native_area(pipe: Any, astronaut: np.ndarray) -> None:
    wide = np.concatenate([astronaut, np.zeros_like(astronaut)], 1)
    native = pipe.unet.config.sample_size * pipe.vae_scale_factor
    width, height = pipe.prepare_landmarks(wide).size
    assert abs(width * height / native**2 - 1) < 0.2
    assert 1.7 < width / height < 2.4
    assert width % (2 * pipe.vae_scale_factor) == height % (2 * pipe.vae_scale_factor) == 0
    assert np.asarray(pipe.prepare_landmarks(wide)).any()


def test_faces_and_points(pipe: Any, astronaut: np.ndarray) -> None:
    face = FaceAnalyzer().find(astronaut)
    expected = draw_keypoints(face.landmarks, (512, 512))
    for source in (face, [face], face.landmarks, face.landmarks[None], face.landmarks.tolist()):
        assert (np.asarray(pipe.prepare_landmarks(source, (512, 512))) == expected).all()
    both = pipe.prepare_landmarks(np.stack([face.landmarks, face.landmarks + 100]), (512, 512))
    assert (np.asarray(both) != expected).any()


def test_invalid_sources_are_refused(pipe: Any, tmp_path: Path) -> None:
    with pytest.raises(NoFaceError):
        pipe.prepare_landmarks(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(ImageError, match="a photo, faces, or points"):
        pipe.prepare_landmarks([np.zeros((64, 64, 3), np.uint8)])
    with pytest.raises(ImageError):
        pipe.prepare_landmarks(tmp_path / "nowhere.png")
