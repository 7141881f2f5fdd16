"""Predictions at each timestep, and the windows that are proposed for losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen import cli
from idgen.errors import EvaluationError
from idgen.evaluation.cases import load_cases
from idgen.losses import LossConfig
from idgen.tiny import load_tiny
from idgen.training.probes import LOST, READABLE, Predictions, Probe, probe_group, probe_identity, probe_labels
from idgen.training.timesteps import measure
from tests.data import sets


def predictions(embeds: np.ndarray, pictures: np.ndarray | None = None) -> Predictions:
    return Predictions(
        np.zeros((len(embeds), 1)) if pictures is None else pictures, embeds, np.ones(len(embeds), bool)
    )


@pytest.mark.parametrize("chance", [0.0, 0.84])
def test_a_window_is_where_noise_removed_the_attribute_and_the_prediction_shows_it(chance: float) -> None:
    """The attribute of the base model's predictions falls from the photo's to the chance level, whatever these are."""
    for bins in (5, 20):
        for start in range(bins):
            for end in range(start + 1, bins + 1):
                shares = np.arange(bins)
                without = np.where(shares < start, 1 - LOST / 2, 1 - 2 * LOST)
                shown = np.where(shares < end, 1.0, READABLE / 2)
                with_id, without_id = ((chance + curve * (0.95 - chance)).tolist() for curve in (shown, without))
                probe = Probe(name="identity", photo=0.95, chance=chance, with_id=with_id, without_id=without_id)
                assert probe.window == (start / bins, end / bins)
    nothing = {"photo": 0.95, "chance": chance}
    assert Probe(name="a", **nothing, with_id=[chance] * 3, without_id=[chance] * 3).window is None  # unreadable
    assert Probe(name="a", **nothing, with_id=[0.95] * 3, without_id=[0.95] * 3).window is None  # nothing is lost
    assert Probe(name="a", photo=0.5, chance=0.5, with_id=[0.5], without_id=[0.5]).window is None


def test_probes_of_identity_groups_and_labels() -> None:
    angles = np.radians([0, 10, 90, 100])  # two groups of two people
    photos = np.stack([np.cos(angles), np.sin(angles)], 1)
    own, others = ([predictions(photo[None]) for photo in part] for part in (photos, photos[::-1]))
    cosines = photos @ photos.T
    identity = probe_identity(photos, photos, own, others)
    assert (identity.photo, identity.with_id) == (pytest.approx(1), pytest.approx([1]))
    assert identity.chance == pytest.approx((cosines.sum() - 4) / 12)
    assert identity.without_id == pytest.approx([np.diag(cosines[::-1]).mean()])
    group = probe_group(photos, photos, np.array(["a", "a", "b", "b"]), own, others)
    assert (group.photo, group.chance, group.with_id, group.without_id) == (1, 0.5, [1], [0])
    alone = probe_group(photos, photos, np.array(["a", "b", "b", "b"]), own, others)  # the only one of a group
    assert alone.photo == 0.5  # and the one who looks like that person
    pictures = [np.full((1, 2, 2, 3), value, np.uint8) for value in (0, 0, 1, 2)]
    same = [predictions(photo[None], picture) for photo, picture in zip(photos, pictures, strict=True)]
    first = [predictions(photo[None], pictures[0]) for photo in photos]
    label = probe_labels(lambda images: np.eye(3)[images[:, 0, 0, 0]], [each[0] for each in pictures], same, first)
    assert (label.photo, label.with_id, label.without_id) == (1, [1], [0.5])
    assert label.chance == pytest.approx((4 + 1 + 1) / 16)


def test_the_command_proposes_a_window_that_a_run_can_read(
    people: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the built-in model: noise removes the person, and the identity brings the person back."""
    flags = ["--identities", str(people), "--prompts", "tiny", "--output", str(tmp_path)]
    flags += ["--detector", str(shared / "models" / "yunet.onnx")]
    monkeypatch.setattr("idgen.training.timesteps.BINS", 6)  # to be quick
    monkeypatch.setattr("sys.argv", ["idgen", "evaluate", "--by-timestep", *flags])
    cli.main()
    out = capsys.readouterr().out
    told = json.loads((tmp_path / "timesteps.json").read_text())
    assert out.count("\n| 0.") == len(told["timesteps"]) == 6
    (identity,) = told["probes"]
    assert identity["photo"] > identity["chance"]
    assert identity["without_id"][0] > identity["without_id"][-1]
    assert np.mean(identity["with_id"][-3:]) > np.mean(identity["without_id"][-3:])
    proposed = out.strip().splitlines()[-1].partition("--losses identity=")[2]
    assert LossConfig(weights={"identity": proposed}).active["identity"].window == tuple(identity["window"])
    assert (tmp_path / "timesteps.png").read_bytes()[1:4] == b"PNG"


def test_people_without_a_target_are_named(tmp_path: Path, astronaut: np.ndarray) -> None:
    sets.save(Image.fromarray(astronaut), tmp_path / "eileen" / "1.jpg")
    with pytest.raises(EvaluationError, match=r"a target photo, unlike \['eileen'\]"):
        measure(load_tiny(), "tiny", load_cases(tmp_path))
