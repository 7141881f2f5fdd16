"""Results have similarity scores by the adapter's encoder and by an evaluation encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import idgen
from idgen.demo.enrolled import EnrolledPerson, enroll_person
from idgen.demo.examples import SEEDS, example, picture
from idgen.demo.scores import Score, caption
from idgen.demo.second_encoder import encoder_at_hand
from idgen.faces import DlibEncoder, EncoderStatistics, FaceAnalyzer, load_photo
from tests.demo.conftest import Served, gallery


class Colours:
    """A face encoder that no adapter reads: brightness at 4 × 4 places."""

    name = "colours"
    dim = 48

    def __init__(self) -> None:
        self._crop = DlibEncoder().crop

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return self._crop(image, landmarks)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        small = [np.asarray(Image.fromarray(crop).resize((4, 4)), np.float32).ravel() for crop in crops]
        return np.stack(small) - 100


@pytest.fixture(scope="module")
def served(serve: Any) -> Served:
    return serve(idgen.load_tiny(), base="tiny", eval_encoder=Colours())


@pytest.fixture(scope="module")
def person(served: Served, eileen: Path) -> EnrolledPerson:
    photo = load_photo(eileen)
    return enroll_person(served.pipe, [photo], [FaceAnalyzer().find(photo)], "Eileen", served.backend.scorer.encoders)


def test_results_are_scored_by_both_encoders(served: Served, person: EnrolledPerson, eileen: Path) -> None:
    client = served.client()
    client.predict(gallery(eileen), [], "Eileen", True, api_name="/enroll")
    shown, table = client.predict("Eileen", seed=14, api_name="/generate")
    with Image.open(served.path(shown[0]["image"])) as file:
        expected = served.backend.scorer(1, np.asarray(file.convert("RGB")), [person])
    assert [score.encoder for score in expected] == [DlibEncoder.name, "colours"]
    for row, score in zip(table["data"], expected, strict=True):
        assert row[:3] == [1, "Eileen", score.encoder]
        assert row[3] == pytest.approx(score.cosine, abs=1e-3)
    assert shown[0]["caption"] == "seed 14"
    client.close()


def test_the_photo_itself_has_the_highest_similarity(served: Served, person: EnrolledPerson, eileen: Path) -> None:
    likeness, photo = served.backend.scorer, load_photo(eileen)
    assert [score.cosine for score in likeness(1, photo, [person])] == pytest.approx([1, 1], abs=1e-4)
    assert [score.cosine for score in likeness(1, np.zeros_like(photo), [person])] == [None, None]


def test_the_caption_says_if_no_face_was_found() -> None:
    scores = [Score(1, "Anna", "one", 0.5), Score(1, "Anna", "two", None)]
    told = caption(scores, "seed 3")
    assert told.startswith("seed 3")
    assert "0.50 (one)" in told
    assert "no face found (two)" in told


def test_several_people_are_found_with_the_default_settings(served: Served) -> None:
    """The small model draws one face per image; everybody must be there all the same."""
    client = served.client()
    for name in SEEDS:
        assert client.predict(name, api_name="/add_example") == name
    _, table = client.predict(list(SEEDS)[:2], seed=1, count=2, api_name="/several_people")
    found = [row[3] is not None for row in table["data"] if row[2] == DlibEncoder.name]
    assert len(found) == 4
    assert sum(found) >= 3
    client.close()


@pytest.mark.parametrize("name", SEEDS)
def test_the_picture_of_an_invented_person_shows_them(served: Served, name: str) -> None:
    with Image.open(picture(name)) as file:
        pixels = np.asarray(file.convert("RGB"))
    people = [example(served.backend, each) for each in SEEDS]
    cosines = {person.name: served.backend.scorer(1, pixels, [person])[0].cosine or 0 for person in people}
    assert max(cosines, key=lambda each: cosines[each]) == name
    assert cosines[name] > EncoderStatistics.of(DlibEncoder.name).equal_error[1]


def test_an_encoder_at_hand_is_one_that_no_adapter_reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # of insightface's packs
    first = encoder_at_hand(["another"])
    assert first is not None
    assert first.name == DlibEncoder.name
    assert encoder_at_hand([DlibEncoder.name]) is None
    (tmp_path / ".insightface" / "models" / "damaged").mkdir(parents=True)
    assert encoder_at_hand([DlibEncoder.name]) is None
