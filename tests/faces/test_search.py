"""Laws of finding faces: landmarks do not depend on a photo's size, on how it is turned, or on how tight it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dlib
import numpy as np
import pytest
from PIL import Image

from idgen.faces import Detection, DlibDetector, DlibEncoder, FaceDetector, load_photo
from idgen.faces.opencv import YuNetDetector
from idgen.faces.quick import QuickDetector
from idgen.faces.search import Doubt, search


@pytest.fixture(scope="module", params=["dlib", "yunet"])
def detector(request: pytest.FixtureRequest) -> FaceDetector:
    if request.param == "dlib":
        return DlibDetector()
    return YuNetDetector(request.getfixturevalue("shared") / "models" / "yunet.onnx")


@pytest.fixture(scope="module", params=["astronaut", "neutral", "smiling"])
def photo(request: pytest.FixtureRequest) -> np.ndarray:
    if request.param == "astronaut":
        return request.getfixturevalue("astronaut")
    shared: Path = request.getfixturevalue("shared")
    person = {"neutral": "007", "smiling": "011"}[request.param]
    return load_photo(shared / "data" / "london" / person / f"{request.param}.jpg")


def largest(found: list[Detection]) -> Detection:
    return max(found, key=lambda face: face.area)


@pytest.fixture(scope="module")
def upright(detector: FaceDetector, photo: np.ndarray) -> Detection:
    """The largest face of the photo as it is."""
    return largest(detector.detect(photo))


@pytest.fixture(scope="module")
def encoder() -> DlibEncoder:
    return DlibEncoder()


def eye_distance(face: Detection) -> float:
    return float(np.linalg.norm(face.landmarks[1] - face.landmarks[0]))


def enlarged(photo: np.ndarray, factor: int) -> np.ndarray:
    image = Image.fromarray(photo)
    return np.asarray(image.resize((image.width * factor, image.height * factor), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarging_a_photo_moves_no_landmark(
    detector: FaceDetector, photo: np.ndarray, upright: Detection, factor: int
) -> None:
    """By more than 3 % of the distance between the eyes."""
    large = largest(detector.detect(enlarged(photo, factor)))
    moved = (large.landmarks + 0.5) / factor - 0.5 - upright.landmarks
    assert np.linalg.norm(moved, axis=1).max() < 0.03 * eye_distance(upright)


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_turned_photo_shows_the_same_person_or_no_face(
    detector: FaceDetector, photo: np.ndarray, upright: Detection, encoder: DlibEncoder, turn: int
) -> None:
    turned = np.ascontiguousarray(np.rot90(photo, turn))
    found = detector.detect(turned)
    if not found:
        assert isinstance(detector, DlibDetector)  # which does not see faces that lie on their side
        return
    crops = encoder.crop(photo, upright.landmarks), encoder.crop(turned, largest(found).landmarks)
    one, other = encoder.embed(np.stack(crops))
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.985  # strangers have 0.84


def test_a_close_up_is_found(detector: FaceDetector, photo: np.ndarray, upright: Detection) -> None:
    """Of the face from the eyebrows to the chin, and little else."""
    left, right = upright.landmarks[:, 0].min(), upright.landmarks[:, 0].max()
    top, bottom = upright.landmarks[:, 1].min(), upright.landmarks[:, 1].max()
    margin = 0.45 * eye_distance(upright)
    x0, y0 = int(left - margin), int(top - margin)
    close = largest(detector.detect(photo[y0 : int(bottom + 1.3 * margin), x0 : int(right + margin)]))
    moved = close.landmarks + np.array([x0, y0]) - upright.landmarks
    assert np.linalg.norm(moved, axis=1).max() < 0.2 * eye_distance(upright)


@pytest.mark.parametrize("size", [(100, 80), (900, 1300)])
@pytest.mark.parametrize("side", [640, None])
def test_what_is_too_large_for_a_detector_is_found_with_a_border(size: tuple[int, int], side: int | None) -> None:
    """One that knows only what takes at most 60 % of a picture, as networks that were trained with some context."""

    def run(pixels: np.ndarray) -> list[Detection]:
        rows, columns = (np.flatnonzero(pixels.any((axis, 2))) for axis in (1, 0))
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
        if (box[2:] - box[:2] > 0.6 * np.array(pixels.shape[1::-1])).any():
            return []
        return [Detection(box, np.tile((box[:2] + box[2:] - 1) / 2, (5, 1)), 1.0)]

    (face,) = search(np.full((*size[::-1], 3), 200, np.uint8), run, side, doubt=Doubt(sure=1))
    np.testing.assert_allclose(face.box, [0, 0, *size], atol=2)
    np.testing.assert_allclose(face.landmarks[0], (np.array(size) - 1) / 2, atol=2)


@pytest.mark.parametrize("people", [1, 2])
def test_the_quick_search_finds_the_same_faces(detector: FaceDetector, astronaut: np.ndarray, people: int) -> None:
    """Large, filling the picture, and small; in pictures of one and of two people, and none in an empty one."""
    assert isinstance(detector, DlibDetector | YuNetDetector)
    quick = QuickDetector(detector, people)
    small = np.full_like(astronaut, 127)
    small[200:456, 100:356] = astronaut[::2, ::2]
    for picture in (astronaut, astronaut[40:210, 150:300], *([small] if people == 1 else [])):
        picture = np.concatenate([picture, picture[:, ::-1] // 2], 1) if people == 2 else picture
        found, expected = (sorted(each.detect(picture), key=lambda face: face.box[0]) for each in (quick, detector))
        assert len(found) == len(expected) == people
        for face, known in zip(found, expected, strict=True):
            moved = np.linalg.norm(face.landmarks - known.landmarks, axis=1).mean() / eye_distance(known)
            assert moved < 0.06  # the two detectors differ by 0.07
    assert quick.detect(np.full_like(astronaut, 127)) == []


def test_a_face_that_is_found_at_once_takes_no_search(astronaut: np.ndarray) -> None:
    """So that detection is a small part of training: a search reads at least eight times as many pixels."""
    detector, read = DlibDetector(), []
    run = detector.run
    detector.run = lambda pixels: read.append(pixels.shape[:2]) or run(pixels)
    QuickDetector(detector).detect(astronaut)
    assert read in ([(320, 320)], 2 * [(320, 320)])  # it is looked at again where the score is low


def test_dlib_in_several_threads(astronaut: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """They find what one finds, each with a detector of dlib's; the next instance makes no other one."""
    expected, made = DlibDetector(640).detect(astronaut), []
    make = dlib.get_frontal_face_detector  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setattr(dlib, "get_frontal_face_detector", lambda: (made.append(1), make())[1])
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(DlibDetector(640).detect, [astronaut] * 6))
    for faces in found:
        np.testing.assert_array_equal([face.box for face in faces], [face.box for face in expected])
        np.testing.assert_array_equal([face.landmarks for face in faces], [face.landmarks for face in expected])
    assert len(made) <= 2
    made.clear()
    DlibDetector(640).detect(astronaut)
    assert not made
