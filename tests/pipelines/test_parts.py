"""Tokens of parts of a face beside those of the person: two adapters that read one photo."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from idgen import Identity
from idgen.errors import EncoderMismatchError
from idgen.faces import DlibEncoder, FaceAnalyzer
from idgen.provenance import IdentityBlocklist
from tests.components import SMALL_PROJECTIONS, make_adapter, make_pipeline

from .kinds import draw

PARTS, DIM = "parts/dlib-resnet-v1", 4 * 480


def with_parts(analyzer: FaceAnalyzer | None = None) -> Any:
    """A pipeline with an adapter of parts, beside one of people if their analyzer is given."""
    pipeline = make_pipeline()
    if analyzer is not None:
        people = make_adapter(pipeline.unet, encoder=DlibEncoder.name, embedding_dim=128)
        pipeline.load_id_adapter(people, face_analyzer=analyzer)
    parts = make_adapter(
        pipeline.unet, seed=8, encoder=PARTS, embedding_dim=DIM, projection=SMALL_PROJECTIONS["rows"], normalised=True
    )
    pipeline.load_id_adapter(parts, adapter_name="parts")
    return pipeline


def test_one_photo_gives_the_person_and_the_parts(astronaut: np.ndarray, analyzer: FaceAnalyzer) -> None:
    pipeline, photo = with_parts(analyzer), astronaut[:220, 120:340]
    both = draw(pipeline, id_image=photo)
    person, parts = (pipeline.encode_identity(photo, adapter_name=name) for name in ("default", "parts"))
    assert (parts.encoder, parts.dim) == (PARTS, DIM)
    assert np.array_equal(draw(pipeline, id_embeds={"default": person, "parts": parts}), both)
    alone = draw(pipeline, id_embeds={"default": person})
    assert np.abs(both - alone).max() > 0.01
    off = draw(pipeline, id_embeds={"default": person, "parts": parts}, id_scale={"parts": 0.0})
    assert np.array_equal(off, alone), "scale 0 changes no bit"
    with pytest.raises(EncoderMismatchError, match="reads embeddings of 'parts/dlib-resnet-v1'"):
        draw(pipeline, id_embeds=person)


def test_parts_are_no_way_around_a_blocklist() -> None:
    """Parts tell who somebody is, and cannot be compared with embeddings of whole faces."""
    pipeline = with_parts()
    anna = Identity.random(DlibEncoder.name, 128, seed=1)
    parts = Identity.random(PARTS, DIM, seed=1)
    pipeline.id_blocklist = IdentityBlocklist.of(anna, threshold=0.9)
    with pytest.raises(EncoderMismatchError, match="cannot be compared"):
        draw(pipeline, id_embeds={"parts": parts})
    with pytest.raises(EncoderMismatchError, match="cannot be compared"):
        pipeline.id_adapters["parts"].encode(parts.embedding(normalised=True)[None])
