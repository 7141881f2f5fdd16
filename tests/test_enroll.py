from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from idgen import FaceAnalyzer, enroll
from idgen.errors import ManyFacesError


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
