"""The table of metrics: a new row appears in reports, the terminal, comparisons and the documentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from idgen.errors import EvaluationError
from idgen.evaluation import METRICS, Faces, Metric, Picture
from idgen.evaluation.compare import compare
from idgen.evaluation.judges import EncoderRole, Judges, read_real
from idgen.evaluation.measure import Shot, measure
from idgen.evaluation.metrics import metrics_table, picture_values
from idgen.evaluation.report import write_report
from idgen.evaluation.summary import as_text

from .conftest import save_pictures
from .test_judges import Colour, Halves

ROLE = EncoderRole(name="colour", role="evaluation only", headline=True)
DUMMIES = {
    "brightness": ("picture", lambda picture: float(picture.pixels.mean())),
    "angle": ("faces", lambda faces: float(np.degrees(np.arccos((faces.drawn * faces.reference).sum(-1))).mean())),
    "crops": ("person", lambda crops: np.full(len(crops), float(len(crops)))),
    "crowd": ("everyone", lambda embeddings, people: np.full(len(people), float(len(np.unique(people))))),
    "threshold": ("pairs", lambda rates: rates.eer + 1),
    "many": ("utilities", lambda utility, weights: float(utility.shape[1] * (weights > 0).any())),
    "width": ("features", lambda drawn, real: float(drawn.shape[1])),
}


@pytest.fixture
def dummies(monkeypatch: pytest.MonkeyPatch) -> None:
    """One new metric of each kind; this is all that adding them takes."""
    for name, (reads, compute) in DUMMIES.items():
        row = Metric(name=name, title=f"The {name}", reads=reads, compute=compute, better="higher", formula=f"{name}!")
        monkeypatch.setitem(METRICS, name, row)


def mean_colour(pictures: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([picture.mean((0, 1)) for picture in pictures])


def write(folder: Path) -> list[str]:
    """The report on two pictures of two people; returns what the terminal shows."""
    red, green = [255, 0, 0], [0, 255, 0]
    case = save_pictures(folder, references=[red, green], target=[red, green], out=[red, green])
    judges = Judges(detector=Halves(), encoders={"colour": Colour()}, features=mean_colour)
    assert case.output is not None
    shots = [Shot(case=case, file=case.output, prompt="", seed=seed) for seed in range(2)]
    measured = measure(shots, judges, read_real([case], judges))
    assert measured.features is not None
    measured.features = measured.features[0], measured.features[0]
    return as_text(write_report(folder / "report", {}, [ROLE], measured, shots))


@pytest.mark.usefixtures("dummies")
def test_a_new_row_is_everywhere(tmp_path: Path) -> None:
    terminal = "\n".join(write(tmp_path))
    report = tmp_path / "report"
    page, told = (report / "index.html").read_text(), json.loads((report / "report.json").read_text())
    summary = {line["metric"]: line for line in told["summary"]}
    table = compare(report, report, tmp_path / "both")
    both = (tmp_path / "both" / "index.html").read_text()
    for name, (reads, _) in DUMMIES.items():
        assert summary[name]["title"] == f"The {name}"
        assert summary[name]["encoder"] == ("colour" if reads in ("faces", "everyone", "pairs", "utilities") else "")
        assert f"The {name} ↑" in page
        assert f"The {name} ↑" in terminal
        assert f"| The {name} ↑ | {name}! |" in metrics_table()
        assert (f"The {name} ↑" in both) == (METRICS[name].reads != "features")
    assert {"brightness", "angle", "threshold"} <= {line["metric"] for line in table}
    assert (summary["crops"]["value"], summary["crowd"]["value"], summary["width"]["value"]) == (2, 1, 3)


def test_every_metric_of_a_picture_is_computed_from_what_there_is() -> None:
    """A metric whose input is missing is left out, and none fails."""
    pixels, face = np.zeros((4, 4, 3), np.uint8), np.array([[1.0, 0]])
    assert picture_values(Picture(pixels=pixels)) == {"sharpness": 0}
    bare = picture_values(Picture(pixels=pixels, faces={"e": Faces(drawn=face, reference=face)}))
    assert bare == {"sim_ref/e": 1, "detection": 1, "sharpness": 0}
    two = np.eye(2)
    everything = Picture(
        pixels=pixels,
        faces={"e": Faces(drawn=two, reference=two, target=two)},
        without=pixels,
        seconds=1.0,
        prompt_score=0.5,
        features=np.ones(3),
        features_without=np.ones(3),
    )
    found = {name.partition("/")[0] for name in picture_values(everything)}
    assert found == {name for name, metric in METRICS.items() if metric.reads in ("picture", "faces")}


def test_a_report_with_an_unknown_metric_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.delitem(METRICS, "detection")
    with pytest.raises(EvaluationError, match="unknown metrics: detection"):
        compare(tmp_path / "report", tmp_path / "report", tmp_path / "both")
