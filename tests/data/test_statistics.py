"""Statistics of an encoder: measured on made-up people whose distribution is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from idgen.data.manifest import Manifest
from idgen.data.statistics import measure, measure_set, statistics_for
from idgen.errors import CheckpointError, StatisticsError
from idgen.faces import EncoderStatistics, ScoreDistribution

DIM, PEOPLE, PHOTOS = 64, 1000, 3


def faces(people: int = PEOPLE, spread: float = 1.0, offset: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of length 3: a centre that all share, a direction for each person, and one for each photo."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(people), PHOTOS)
    person, photo = random.normal(size=(people, DIM)), random.normal(size=(people * PHOTOS, DIM))
    embeddings = offset * np.eye(DIM)[0] * DIM**0.5 + person[labels] + spread * photo
    return 3 * embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), labels


@pytest.fixture(scope="module")
def measured() -> EncoderStatistics:
    return measure("made-up", *faces(), pairs=200_000)


def test_the_figures_are_those_of_all_pairs(measured: EncoderStatistics) -> None:
    embeddings, labels = faces()
    cosines = embeddings @ embeddings.T / 9
    first, second = np.triu_indices(len(labels), 1)
    same = labels[first] == labels[second]
    genuine, impostor = cosines[first, second][same], cosines[first, second][~same]
    assert (measured.people, measured.photos, measured.length) == (PEOPLE, PEOPLE * PHOTOS, pytest.approx(3))
    assert 199_000 < measured.impostor.pairs <= 200_000  # but for draws of one person twice
    assert measured.genuine.pairs == len(genuine)  # however many are drawn, there are no more
    for found, scores in ((measured.genuine, genuine), (measured.impostor, impostor)):
        assert found.mean == pytest.approx(scores.mean(), abs=1e-3)
        assert found.deviation == pytest.approx(scores.std(), rel=0.02)
        for level in (0.03, 0.5, 0.97):
            assert found.quantile(level) == pytest.approx(np.quantile(scores, level), abs=2e-3)
    for rate in (1e-3, 1e-2, 0.1):
        threshold = measured.threshold(rate)
        assert (impostor > threshold).mean() == pytest.approx(rate, rel=0.2)
        assert measured.false_match_rate(threshold) == pytest.approx(rate, rel=1e-3)
        assert measured.false_non_match_rate(threshold) == pytest.approx((genuine <= threshold).mean(), abs=0.01)
    rate, threshold = measured.equal_error
    assert measured.false_match_rate(threshold) == pytest.approx(measured.false_non_match_rate(threshold), abs=1e-6)
    assert rate == pytest.approx((impostor > threshold).mean(), abs=2e-3)
    unit = embeddings / 3
    assert measured.centre == pytest.approx(unit.mean(0), abs=1e-6)


def test_a_set_is_measured_on_its_named_people(measured: EncoderStatistics, tmp_path: Path) -> None:
    """Not on people whom `prepare` found by how similar faces are; where too few have names, the package helps."""
    embeddings, _ = faces()
    strangers = np.random.default_rng(1).normal(size=(500, DIM))  # would lower all cosines
    names = [f"person-{i:04d}" for i in range(PEOPLE)]

    def write(people: list[str]) -> str:
        counts = [PHOTOS] * PEOPLE + [1] * len(strangers)
        table = {
            "person": people,
            "split": ["train"] * len(people),
            "start": np.cumsum([0, *counts[:-1]]),
            "count": counts,
        }
        (tmp_path / "bank").mkdir(exist_ok=True)
        pq.write_table(pa.table(table), tmp_path / "bank" / "people.parquet")
        np.save(tmp_path / "bank" / "embeddings.npy", np.concatenate([embeddings, strangers]).astype(np.float32))
        np.save(tmp_path / "bank" / "rows.npy", np.zeros((sum(counts), 2), int))
        nothing: dict[str, Any] = {"counts": {}, "dropped": {}, "aside": {}, "splits": {}, "settings": {}}
        Manifest(format="1", encoder="dlib-resnet-v1", dim=DIM, detector="d", shards={}, **nothing).save(str(tmp_path))
        return str(tmp_path)

    found = measure_set(write([*names, *(f"found-{i:04d}" for i in range(500))]), pairs=200_000)
    assert (found.people, found.photos) == (PEOPLE, PEOPLE * PHOTOS)
    assert found.threshold(1e-2) == pytest.approx(measured.threshold(1e-2), abs=1e-6)
    assert statistics_for(str(tmp_path)).people == PEOPLE
    centred = statistics_for(str(tmp_path), centred=True)
    assert abs(centred.impostor.mean) < 0.02 < found.impostor.mean
    assert np.array_equal(centred.centre, found.centre)
    write([*(f"found-{i:04d}" for i in range(PEOPLE)), *(f"named-{i}" for i in range(500))])
    assert statistics_for(str(tmp_path)) is EncoderStatistics.of("dlib-resnet-v1")


def test_a_temperature_makes_log_likelihood_ratios() -> None:
    """The slope of log p(s | same) − log p(s | strangers), where both are normal and equally wide."""
    random = np.random.default_rng(0)
    genuine, impostor = (ScoreDistribution.of(random.normal(mean, 0.05, 400_000)) for mean in (0.5, 0.1))
    told = EncoderStatistics(
        encoder="normal", people=1, photos=2, centre=np.zeros(2), length=1.0, genuine=genuine, impostor=impostor
    )

    def ratio(score: float) -> float:
        return ((score - 0.1) ** 2 - (score - 0.5) ** 2) / (2 * 0.05**2)

    assert (0.35 - 0.25) / told.temperature == pytest.approx(ratio(0.35) - ratio(0.25), rel=0.01)


def test_a_file_gives_the_same_back(measured: EncoderStatistics, tmp_path: Path) -> None:
    measured.save(tmp_path / "s.json")
    again = EncoderStatistics.load(tmp_path / "s.json")
    assert again.threshold() == pytest.approx(measured.threshold())
    assert again.genuine == measured.genuine
    assert again.centre == pytest.approx(measured.centre, abs=1e-5)
    for damaged in ("", "[]", '{"format": "else"}', (tmp_path / "s.json").read_text().replace('"pairs"', '"pears"')):
        (tmp_path / "s.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"statistics of a face encoder|not valid JSON"):
            EncoderStatistics.load(tmp_path / "s.json")


def test_too_few_people_are_refused(measured: EncoderStatistics) -> None:
    with pytest.raises(StatisticsError, match="too few for a false-match rate of 1e-05"):
        measured.threshold(1e-5)
    with pytest.raises(StatisticsError, match="between 0 and 1"):
        measured.threshold(0)
    with pytest.raises(StatisticsError, match="449 people"):
        measure("made-up", *faces(449))
    embeddings, _ = faces()
    with pytest.raises(StatisticsError, match="Check the labels"):
        measure("made-up", embeddings, np.tile(np.arange(PEOPLE), PHOTOS))
    with pytest.raises(StatisticsError, match="no statistics of 'insightface/other'"):
        EncoderStatistics.of("insightface/other")


def test_the_default_encoder_is_known() -> None:
    """Its figures are those of docs/prepare.md and docs/safety.md, measured on the same photos."""
    dlib = EncoderStatistics.of("dlib-resnet-v1")
    assert dlib.genuine.quantile(0.5) == pytest.approx(0.954, abs=2e-3)
    assert dlib.impostor.quantile(0.5) == pytest.approx(0.837, abs=2e-3)
    assert dlib.threshold(1e-4) == pytest.approx(0.941, abs=2e-3)
    assert dlib.length == pytest.approx(1.4, abs=0.1)
