"""Trackers receive the metrics and the validation pictures."""

from __future__ import annotations

import io
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from idgen import IdentityAdapter, enroll
from idgen.errors import MissingDependencyError
from idgen.faces import DlibDetector, DlibEncoder
from idgen.losses import make_losses
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.config import LoopConfig, LossConfig, OptimizerConfig
from idgen.training.denoiser import IdentityDenoiser
from idgen.training.loop import Loop
from idgen.training.tracking import check_tracker, show_pictures, start_trackers
from idgen.training.validation import Validation

from .runs import POINTS, RandomPeople

PROMPTS = ["a photo of a face", "a sepia photo of a face"]


class TinyPeople(RandomPeople):
    """Batches for the built-in model."""

    def make(self, number: int) -> Batch:
        random = torch.Generator().manual_seed(number)
        wide = {
            "latents": torch.randn(self.size, 16, 16, 16, generator=random),
            "id_embeds": torch.randn(self.size, 128, generator=random),
            "landmarks": 2 * POINTS.expand(self.size, -1, -1),
            "encoder": DlibEncoder.name,
        }
        return Batch(**{**vars(super().make(number)), **wide})


def read(folder: Path) -> EventAccumulator:
    (file,) = [path for path in folder.glob("idgen/*") if path.name.startswith("events")]
    found = EventAccumulator(str(file), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_tensorboard_has_the_metrics_and_the_pictures(astronaut: np.ndarray, tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=tmp_path)
    start_trackers(accelerator, {"loop": {"seed": 0}, "output_dir": tmp_path})
    base = BaseModel.open("tiny", torch.float32, torch.device("cpu"))
    torch.manual_seed(0)
    adapter = IdentityAdapter.from_unet(base.unet, encoder=DlibEncoder.name, embedding_dim=128)
    adapter.attach(base.unet)
    people = [{DlibEncoder.name: enroll(astronaut), "unseen": enroll(astronaut)}]
    encoders = {DlibEncoder.name: DlibEncoder(), "unseen": DlibEncoder()}
    show = partial(show_pictures, accelerator, PROMPTS)
    validation = Validation(base, adapter, people, PROMPTS, DlibDetector(), encoders, tmp_path, steps=4, show=show)
    step = IdentityDenoiser(base, adapter, make_losses(LossConfig.only(), base.parametrisation))
    config = LoopConfig(max_train_steps=2, checkpointing_steps=1, train_batch_size=2)
    Loop(step, TinyPeople(2), tmp_path, config, OptimizerConfig(), accelerator, validate=validation).run()
    accelerator.end_training()

    found, rows = read(tmp_path), [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name in (
        "loss",
        "denoising",
        "lr",
        f"validation/similarity/{DlibEncoder.name}",
        "validation/similarity/unseen",
    ):
        expected = {row["step"]: row[name] for row in rows if name in row}
        events = {event.step: event.value for event in found.Scalars(name)}
        assert events.keys() == expected.keys() == {1, 2}
        assert all(events[at] == pytest.approx(value, rel=1e-5) for at, value in expected.items())
    sheet = np.asarray(Image.open(tmp_path / "step-000002.png"))
    for i, prompt in enumerate(PROMPTS):
        last = found.Images(f"validation/{prompt}")[-1]
        assert last.step == 2
        picture = np.asarray(Image.open(io.BytesIO(last.encoded_image_string)))
        assert np.array_equal(picture, sheet[:128, 130 * i : 130 * i + 128])


def test_trackio_has_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    accelerator = Accelerator(cpu=True, log_with="trackio")
    start_trackers(accelerator, {"loop": {"seed": 0}})
    accelerator.log({"loss": 1.5}, step=1)
    pictures = [[np.full((8, 8, 3), 100 * i + j, np.uint8) for j in range(2)] for i in range(2)]
    show_pictures(accelerator, PROMPTS, 1, pictures)
    accelerator.end_training()
    kept = sorted(int(np.asarray(Image.open(file))[0, 0, 0]) for file in tmp_path.rglob("*.png"))
    assert kept == [0, 1, 100, 101]


def test_a_missing_tracker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_tracker(None)
    check_tracker("tensorboard")
    monkeypatch.setattr("idgen.training.tracking.get_available_trackers", lambda: [])
    with pytest.raises(MissingDependencyError, match="pip install wandb"):
        check_tracker("wandb")
