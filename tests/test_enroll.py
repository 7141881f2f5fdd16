from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from idgen import FaceAnalyzer, Identity, enroll
from idgen.errors import ManyFacesError, NoFaceError


def test_mean_of_photos(analyzer: FaceAnalyzer, astronaut: np.ndarray) -> None:
    once = enroll(astronaut, analyzer)
    both = enroll([astronaut, astronaut[:, ::-1]], analyzer, weights=[3, 1], name="Eileen")
    assert repr(both) == "Identity('Eileen', photos=2, dim=128, encoder='dlib-resnet-v1', raw)"
    assert torch.equal(both.embeddings[0], once.embeddings[0])
    assert (both.embeddings[0] - both.embeddings[1]).norm() < 0.5
    assert torch.allclose(both.embedding(), 0.75 * both.embeddings[0] + 0.25 * both.embeddings[1])


def test_one_of_several_faces(analyzer: FaceAnalyzer, group_photo: Path) -> None:
    with pytest.raises(ManyFacesError, match="6 faces"):
        enroll(group_photo, analyzer)
    largest = analyzer.analyze(group_photo)[0]
    for choice in ("largest", 0, tuple(largest.box)):
        chosen = enroll(group_photo, analyzer, face=choice)
        assert np.array_equal(chosen.embedding().numpy(), largest.embedding)


def test_two_photos_of_two_people_are_a_warning(
    analyzer: FaceAnalyzer, astronaut: np.ndarray, group_photo: Path
) -> None:
    """Every pair of seven people; and none of a person and changed photos of hers."""
    faces = [*analyzer.analyze(group_photo), analyzer.find(astronaut)]
    people = [Identity(embeddings=torch.from_numpy(face.embedding)[None], encoder=face.encoder) for face in faces]
    assert len(people) == 7
    for pair in combinations(people, 2):
        with pytest.warns(UserWarning, match=r"two people: their cosine by 'dlib-resnet-v1' is 0\.\d+"):
            Identity.mean(pair)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for changed in (astronaut[:, ::-1], astronaut // 2, astronaut[:400, 80:440]):
            Identity.mean([people[-1], enroll(changed, analyzer)])
        Identity.mean([Identity.random("unknown", 128, seed=seed) for seed in (0, 1)])


def test_errors_say_in_which_photo(analyzer: FaceAnalyzer, astronaut: np.ndarray, group_photo: Path) -> None:
    nobody = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(NoFaceError, match=r"In photo 2 of 3: No face was found"):
        enroll([astronaut, nobody, astronaut], analyzer)
    with pytest.raises(ManyFacesError, match=r"In photo 1 of 2, '.*t1\.jpg': 6 faces"):
        enroll([group_photo, astronaut], analyzer)
    with pytest.raises(NoFaceError, match=r"^No face was found"):
        enroll(nobody, analyzer)


def test_a_photo_can_be_the_bytes_of_a_file(analyzer: FaceAnalyzer, group_photo: Path) -> None:
    from_bytes, from_path = (enroll(photo, analyzer, face=0) for photo in (group_photo.read_bytes(), group_photo))
    assert np.array_equal(from_bytes.embeddings, from_path.embeddings)
