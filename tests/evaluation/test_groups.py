"""Figures by group are those of the group's pictures, and every similarity stands beside that of strangers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen.data.quality import pose_group, size_group
from idgen.errors import NoFaceError
from idgen.evaluation import METRICS, intervals
from idgen.evaluation.by_group import by_group
from idgen.evaluation.cases import Case
from idgen.evaluation.compare import compare
from idgen.evaluation.error_rates import FMR_TARGET, error_rates
from idgen.evaluation.groups import ESTIMATED, with_groups
from idgen.evaluation.measure import Measured, Row
from idgen.evaluation.report import read_measured, write_report
from idgen.evaluation.scores import scores_of, yardstick
from idgen.evaluation.summary import as_text, group_table, summarise

from .test_judges import Whole, save_mean_colour
from .test_table import ROLE, write

PEOPLE, PICTURES = 40, 3


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "RESAMPLES", 100)


def measured(harder: float = 0.3, encoder: str = "colour") -> Measured:
    """People of three groups; the pictures of group "c" resemble their people less, and one of "tiny" is alone."""
    random = np.random.default_rng(0)
    names = [f"p{i:02d}" for i in range(PEOPLE)]
    groups = ["tiny" if i == 0 else "abc"[i % 3] for i in range(PEOPLE)]
    probes = [name for name in names for _ in range(PICTURES)]
    genuine = np.array(probes)[:, None] == np.array(names)
    means = np.repeat([0.6 - harder * (group == "c") for group in groups], PICTURES)
    scores = np.where(genuine, means[:, None], 0) + random.normal(0, 0.1, genuine.shape)
    rows = [
        Row(
            person=name,
            groups={"group": group, "pose": "xy"[k % 2]},
            prompt=str(k),
            seed=0,
            file="",
            values={f"sim_gt/{encoder}": float(scores[i * PICTURES + k, i]), "detection": 1.0},
        )
        for i, (name, group) in enumerate(zip(names, groups, strict=True))
        for k in range(PICTURES)
    ]
    return Measured(rows=rows, probes=probes, gallery=names, genuine=genuine, scores={encoder: scores})


def test_figures_of_a_group_are_those_of_its_people_alone() -> None:
    run = measured()
    figures, disparities = by_group(run)
    found = {(f.metric, f.by, f.group): f for f in figures}
    scores, genuine = run.scores["colour"], run.genuine
    threshold = error_rates(scores[genuine], scores[~genuine]).threshold
    for by in ("group", "pose"):
        for group in {row["groups"][by] for row in run.rows} - {"tiny"}:
            rows = np.array([row["groups"][by] == group for row in run.rows])
            people = rows.reshape(PEOPLE, PICTURES).any(1)
            inside, same = scores[np.ix_(rows, people)], genuine[np.ix_(rows, people)]
            mean, people_found = found["sim_gt", by, group].figure, found["sim_gt", by, group].people
            assert people_found == people.sum()
            assert mean.value == pytest.approx(inside[same].mean())
            assert mean.low < mean.value < mean.high
            alone = error_rates(inside[same], inside[~same])
            assert found["eer", by, group].figure.value == pytest.approx(alone.eer)
            assert found["fmr", by, group].figure.value == pytest.approx((inside[~same] >= threshold).mean())
            assert found["fnmr", by, group].figure.value == pytest.approx((inside[same] < threshold).mean())
    assert np.isnan(found["sim_gt", "group", "tiny"].figure.low)
    assert ("eer", "group", "tiny") not in found  # one person has no impostors
    largest = {(d["metric"], d["by"]): d for d in disparities}
    assert largest["sim_gt", "group"]["lowest"] == largest["fnmr", "group"]["highest"] == "c"
    assert largest["sim_gt", "group"]["certain"]
    assert largest["sim_gt", "group"]["value"] == pytest.approx(0.3, abs=0.05)
    assert not largest["detection", "group"]["certain"]
    assert not any("tiny" in (d["highest"], d["lowest"]) for d in disparities)  # one person says nothing of a group


def test_a_difference_that_is_noise_is_not_certain() -> None:
    _, disparities = by_group(measured(harder=0.0))
    assert not any(d["certain"] for d in disparities if d["by"] == "pose")


def test_every_similarity_stands_beside_strangers_and_a_threshold(tmp_path: Path) -> None:
    """In the terminal, the page and the JSON; a cosine of two faces cannot be a metric without."""
    for metric in METRICS.values():
        is_cosine = "cos(φ(" in metric.formula and not metric.formula.startswith("share")
        assert metric.similarity == is_cosine, metric.name
    run = measured()
    summary = write_report(tmp_path, {}, [ROLE], run, [])
    strangers, match = yardstick("colour", scores_of(run)["colour"])
    assert strangers == pytest.approx(run.scores["colour"][~run.genuine].mean())
    assert match is not None
    assert (run.scores["colour"][~run.genuine] >= match).mean() <= FMR_TARGET
    told, page = json.loads((tmp_path / "report.json").read_text()), (tmp_path / "index.html").read_text()
    for line in told["summary"]:
        expected = (strangers, match) if METRICS[line["metric"]].similarity else (None, None)
        assert (line["strangers"], line["match"]) == pytest.approx(expected)
    assert f"strangers {strangers:.3f}, threshold {match:.3f}" in as_text(summary)[0]
    assert f"{strangers:.3f}</td>" in page
    assert f"{match:.3f}</td>" in page
    assert all(f"group: {group}" in page for group in "abc")
    for line in compare(tmp_path, tmp_path, tmp_path / "both"):
        expected = (strangers, match) if METRICS[line["metric"]].similarity else (None, None)
        assert (line["strangers"], line["match"]) == pytest.approx(
            expected, abs=1e-4
        )  # scores are rounded in the file
    assert any(line.startswith("By group: Sim(GT) ↑") and "'c'" in line for line in as_text(summary))


def test_a_missed_face_is_no_stranger() -> None:
    """It counts with similarity 0 among strangers too, and not with its score of -1."""
    run = measured()
    run.scores["colour"][:] = -1
    assert yardstick("colour", scores_of(run)["colour"]).strangers == 0


def test_the_table_of_groups_begins_with_everybody() -> None:
    table = group_table(summarise(measured()), "colour")
    assert [(row["by"], row["group"]) for row in table][:2] == [("", ""), ("group", "a")]
    assert table[0]["people"] == PEOPLE
    alone = measured()
    for row in alone.rows:
        row["groups"] = {"group": "a"}
    assert group_table(summarise(alone), "colour") == []  # one group is everybody


def test_a_report_of_an_earlier_version_keeps_its_groups(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "report" / "report.json"
    told = json.loads(file.read_text())
    for row in told["pictures"]:
        del row["groups"]
        row["group"] = "older"
    file.write_text(json.dumps(told))
    assert {row["groups"]["group"] for row in read_measured(tmp_path / "report").rows} == {"older"}


def test_groups_of_photos_cover_all_poses_and_sizes() -> None:
    assert [pose_group(yaw) for yaw in (0, -14.9, 15, -29, 30, 90)] == [
        *("under 15°",) * 2,
        *("15 to 30°",) * 2,
        *("30° and more",) * 2,
    ]
    assert [size_group(width) for width in (10, 63.9, 64, 127.9, 255, 256)] == [
        *("under 64 px",) * 2,
        *("64 to 127 px",) * 2,
        "128 to 255 px",
        "256 px and more",
    ]


def test_estimated_groups_are_marked_and_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only people without a group of their own are estimated."""
    for name, colour in (("a", (250, 0, 0)), ("b", (0, 0, 250))):
        Image.new("RGB", (256, 256), colour).save(tmp_path / f"{name}.png")
    cases = [
        Case(name=name, references=(tmp_path / f"{name}.png",), group=group) for name, group in (("a", "x"), ("b", ""))
    ]
    file = save_mean_colour(tmp_path / "c.onnx", 64, ["red", "green", "blue"])
    own, estimated = (case.groups for case in with_groups(cases, Whole(), file))
    assert own["group"] == "x"
    assert ESTIMATED not in own
    assert estimated[ESTIMATED] == "blue"
    assert own["face size of the reference"] == "256 px and more"
    assert "The groups of 1 people are estimates" in capsys.readouterr().err
    with pytest.raises(NoFaceError, match=r"a\.png"):
        with_groups(cases, type("Blind", (), {"detect": lambda self, image: []})(), None)  # pyright: ignore[reportArgumentType]
