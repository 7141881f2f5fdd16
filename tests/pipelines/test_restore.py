"""Restoring faces: without a person, with one, and what the identity scale follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idgen.adapter import IdScaleCurve, Restorer
from idgen.checkpoints.model_card import with_places
from idgen.errors import BlockedIdentityError, CheckpointError
from idgen.faces import Degradation, measure_degradation
from idgen.provenance import IdentityBlocklist
from tests.components import make_controlnet, seeded

from .kinds import ANNA
from .test_swap import FACES, PICTURE, make


def make_restorer(unet: Any) -> Any:
    plain: Any = make_controlnet(unet)
    made: Any = Restorer.from_config(plain.config)
    made.load_state_dict(plain.state_dict())
    return made.eval()


def restore(
    pipeline: Any, restorer: Any, photo: np.ndarray = PICTURE, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    arguments = {"face": 0, "num_inference_steps": 2, "generator": seeded(1)} | options
    found = pipeline.restore(photo, restorer=restorer, **arguments)
    return np.asarray(found.images[0]), np.asarray(found.masks[0])


def test_scale_0_restores_without_the_person_and_the_curve_decides_otherwise() -> None:
    pipeline = make()
    restorer = make_restorer(pipeline.unet)
    nobody, mask = restore(pipeline, restorer)
    assert nobody.shape == PICTURE.shape
    np.testing.assert_array_equal(nobody[mask == 0], PICTURE[mask == 0])
    assert (nobody != PICTURE)[mask > 0].any()
    anna, _ = restore(pipeline, restorer, id_embeds=ANNA)
    assert (anna != nobody).any()
    np.testing.assert_array_equal(restore(pipeline, restorer, id_embeds=ANNA, id_scale=0)[0], nobody)
    restorer.curve = IdScaleCurve((0.0, 1.0), (0.3, 0.3), (0.3, 0.3))
    curved, _ = restore(pipeline, restorer, id_embeds=ANNA)
    np.testing.assert_array_equal(restore(pipeline, restorer, id_embeds=ANNA, id_scale=0.3)[0], curved)
    pipeline.id_blocklist = IdentityBlocklist.of(pipeline.encode_identity(PICTURE, face=0), threshold=0.999)
    with pytest.raises(BlockedIdentityError):
        restore(pipeline, restorer)


def test_a_small_photo_is_enlarged_to_the_size_of_the_model() -> None:
    pipeline = make()
    picture, mask = restore(
        pipeline, make_restorer(pipeline.unet), PICTURE[:24, :24], face=None, landmarks=FACES[0] * 0.3
    )
    assert picture.shape[0] == picture.shape[1] > 24
    assert mask.max() > 250


def test_a_restorer_comes_back_with_its_curve_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    restorer = make_restorer(make().unet)
    restorer.curve = IdScaleCurve((0.1, 0.5), (0.0, 1.0), (0.4, 0.8))
    restorer.save_pretrained(tmp_path)
    assert "| 0.50 | 1.00 | 0.80 |" in (tmp_path / "README.md").read_text()
    cached = tmp_path / "cache" / "models--user--restorer"
    for folder in (cached / "snapshots" / ("0" * 40), cached / "snapshots" / ("0" * 40) / "restorer"):
        restorer.save_pretrained(folder)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    hub: dict[str, Any] = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    for place, options in (
        (tmp_path, {}),
        (cached / "snapshots" / ("0" * 40), {"subfolder": "restorer"}),
        ("user/restorer", hub),
        ("user/restorer", hub | {"subfolder": "restorer"}),
    ):
        again = Restorer.from_pretrained(place, **options)
        assert again.curve.at(0.3) == pytest.approx((0.5, 0.6)), (place, options)
        assert again.curve.at(0.0) == (0.0, 0.4)
        for name, weight in restorer.state_dict().items():
            assert torch.equal(weight, again.state_dict()[name]), name
    with pytest.raises(CheckpointError, match="neither a folder nor a reachable hub repository"):
        Restorer.from_pretrained("user/no-restorer", **hub)
    card = with_places((tmp_path / "README.md").read_text(), "anna/restorer")
    assert 'Restorer.from_pretrained("anna/restorer")' in card
    for damaged in ('{"degradation": [0.5, 0.1], "early": [1, 1], "late": [1, 1]}', '{"early": 3}'):
        (tmp_path / "id_scale.json").write_text(damaged)
        with pytest.raises(CheckpointError):
            Restorer.from_pretrained(tmp_path)


def test_more_damage_measures_as_more(astronaut: np.ndarray) -> None:
    face = np.asarray(astronaut[70:198, 160:288])[::2, ::2]
    for kind, values in {"blur": (0, 0.7, 1.5), "shrink": (1, 2, 8), "noise": (0, 8, 25)}.items():
        measured = [measure_degradation(Degradation(**{kind: value})(face)) for value in values]
        assert measured == sorted(measured), (kind, measured)
        assert measured[-1] > measured[0] + 0.1, (kind, measured)
    assert measure_degradation(face, zoom=4) > measure_degradation(face) + 0.1
