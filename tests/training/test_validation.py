"""Validation: a copy of the adapter draws, the pictures are measured, and the adapter in training does not change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idgen import IdentityAdapter, enroll
from idgen.evaluation import METRICS, Metric
from idgen.faces import DlibDetector, DlibEncoder
from idgen.training.base import BaseModel
from idgen.training.validation import Validation


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return BaseModel.open("tiny", torch.float32, torch.device("cpu"))


def test_every_person_is_drawn_and_measured(
    base: BaseModel, astronaut: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    adapter = IdentityAdapter.from_unet(base.unet, encoder=DlibEncoder.name, embedding_dim=128)
    adapter.attach(base.unet)
    before = {name: weight.clone() for name, weight in adapter.state_dict().items()}
    person, stock = enroll(astronaut), type(base.pipeline)
    prompts = ["a photo of a face", "a sepia photo of a face", "a cartoon of a face"]
    encoders = {DlibEncoder.name: DlibEncoder()}
    people = [{DlibEncoder.name: person}, {DlibEncoder.name: person.anonymise(60, seed=1)}]
    validation = Validation(base, adapter, people, prompts, DlibDetector(), encoders, tmp_path, steps=10)
    found = validation(7)
    sheet = Image.open(tmp_path / "step-000007.png")
    assert sheet.size == (3 * 130, 2 * 130)
    assert found["validation/faces"] > 0.3
    assert 0 < found[f"validation/similarity/{DlibEncoder.name}"] <= found["validation/faces"]
    assert found[f"validation/others/{DlibEncoder.name}"] < 1
    row = Metric(name="brightness", title="Brightness", reads="picture", compute=lambda picture: picture.pixels.mean())
    monkeypatch.setitem(METRICS, "brightness", row)  # a new row of the table is measured too
    again = validation(7)
    assert 0 < again.pop("validation/brightness") < 255
    assert again == found  # the same noise each time
    assert type(base.pipeline) is stock
    assert adapter.is_attached_to(base.unet)
    assert all(torch.equal(weight, before[name]) for name, weight in adapter.state_dict().items())
