"""`idgen calibrate`: error rates with intervals, and statistics that everything reads afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from idgen.cli import main
from idgen.data.manifest import Manifest
from idgen.data.statistics import NamedFaces
from idgen.data.thresholds import same_person_threshold
from idgen.errors import StatisticsError
from idgen.evaluation import intervals
from idgen.evaluation.calibration import measure_similarities
from idgen.evaluation.synthesis import random_people
from idgen.faces import EncoderStatistics
from idgen.faces.statistics import statistics_file
from idgen.identity import Identity
from idgen.provenance import IdentityBlocklist

PEOPLE, PHOTOS, DIM = 600, 3, 16


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The values do not depend on the number of resamples, and a hundred are enough for the intervals here."""
    monkeypatch.setattr(intervals, "RESAMPLES", 100)


def people(alike: float = 0.5) -> NamedFaces:
    """Of two groups; the people of the second one resemble each other more."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(PEOPLE), PHOTOS)
    second = np.arange(PEOPLE) % 2 == 1
    person = random.normal(size=(PEOPLE, DIM)) * np.where(second, alike, 1)[:, None]
    person[second] += 1
    faces = person[labels] + 0.4 * random.normal(size=(len(labels), DIM))
    turned = np.where(np.arange(len(labels)) % PHOTOS == 0, "turned", "frontal").astype(object)
    return NamedFaces("made-up", faces.astype(np.float32), labels, ["a", "b"] * (PEOPLE // 2), {"pose": turned})


def test_error_rates_are_those_of_all_pairs_and_known_for_each_group() -> None:
    faces = people()
    found = measure_similarities(faces, [1e-2, 1e-3])
    everybody, a, b, frontal = found.groups  # nobody has two turned photos
    assert [group.people for group in found.groups] == [PEOPLE, PEOPLE // 2, PEOPLE // 2, PEOPLE]
    unit = faces.embeddings / np.linalg.norm(faces.embeddings, axis=1, keepdims=True)
    cosines, same = unit @ unit.T, faces.labels[:, None] == faces.labels
    pairs = np.triu(np.ones_like(same), 1)
    insides = np.ones(len(unit), bool), faces.labels % 2 == 1, faces.photo_groups["pose"] == "frontal"
    for group, inside in zip((everybody, b, frontal), insides, strict=True):
        genuine, impostor = (cosines[pairs & kind & inside[:, None] & inside] for kind in (same, ~same))
        assert group.genuine.value == pytest.approx(genuine.mean(), abs=0.005)
        assert group.impostor.value == pytest.approx(impostor.mean(), abs=0.005)
        for rate in group.rates:
            assert rate.false_match.value == pytest.approx((impostor > rate.threshold).mean(), rel=0.2)
            assert rate.missed.value == pytest.approx((genuine <= rate.threshold).mean(), abs=0.01)
        edges = np.linspace(-1, 1, 400)
        nearest = min(abs((genuine <= t).mean() - (impostor > t).mean()) for t in edges)
        at = next(t for t in edges if abs((genuine <= t).mean() - (impostor > t).mean()) == nearest)
        assert group.equal_error.value == pytest.approx((genuine <= at).mean(), abs=0.01)
    assert everybody.rates[0].false_match.low < 0.01 < everybody.rates[0].false_match.high
    assert b.rates[0].false_match.low > a.rates[0].false_match.high  # one threshold errs more in one group
    gap = next(gap for gap in found.gaps if gap.figure.startswith("false matches"))
    assert (gap.by, gap.highest, gap.lowest) == ("group", "b", "a")
    assert gap.difference.value == pytest.approx(b.rates[0].false_match.value - a.rates[0].false_match.value)
    assert gap.difference.low > 0


def write_set(folder: Path, faces: NamedFaces) -> str:
    (folder / "bank").mkdir(parents=True)
    table = {
        "person": [f"person-{i}" for i in range(PEOPLE)],
        "split": ["train"] * PEOPLE,
        "group": faces.groups,
        "start": np.arange(PEOPLE) * PHOTOS,
        "count": [PHOTOS] * PEOPLE,
    }
    pq.write_table(pa.table(table), folder / "bank" / "people.parquet")
    np.save(folder / "bank" / "embeddings.npy", faces.embeddings)
    np.save(folder / "bank" / "rows.npy", np.zeros((len(faces.labels), 2), int))
    nothing: dict = {"counts": {}, "dropped": {}, "aside": {}, "splits": {}, "settings": {}}
    Manifest(format="1", encoder="made-up", dim=DIM, detector="d", shards={}, **nothing).save(str(folder))
    return str(folder)


def test_what_was_measured_is_read_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IDGEN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    one = Identity(embeddings=torch.ones(1, DIM), encoder="made-up")
    with pytest.raises(StatisticsError, match="idgen calibrate"):
        EncoderStatistics.of("made-up")
    monkeypatch.setattr(sys, "argv", ["idgen", "calibrate", write_set(tmp_path / "set", people())])
    main()
    shown = capsys.readouterr().out
    assert str(statistics_file("made-up")) in shown.replace("\n", "")
    assert all(word in shown for word in ("everybody", "600", "300", "EER", "…"))
    statistics = EncoderStatistics.of("made-up")
    threshold = statistics.threshold(1e-4)
    assert IdentityBlocklist.of(one).threshold == pytest.approx(threshold, abs=1e-3)
    assert same_person_threshold(np.eye(2), np.array([-1, -1]), "made-up") == threshold
    several = torch.stack([p.embedding(normalised=True) for p in random_people(20, "made-up", DIM)])
    cosines = several @ several.T - 2 * torch.eye(20)
    assert cosines.max() <= statistics.threshold(1e-3)
