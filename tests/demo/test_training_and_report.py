"""Training runs and reports, from files as training and evaluation write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from idgen.demo.backend import folders_by_name, named_folder
from idgen.demo.tabs.report import read_figures
from idgen.demo.tabs.training import MAX_POINTS, read_run
from idgen.errors import DemoError, EvaluationError
from idgen.faces import DlibEncoder
from tests.components import make_adapter, make_pipeline


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What `Loop` and `Validation` leave: two lines of one step, and one that is being written."""
    folder = tmp_path / "first"
    (folder / "validation").mkdir(parents=True)
    lines: list[dict[str, Any]] = [{"step": i, "loss": float(i), "skipped": 0} for i in range(1, 1001)]
    lines.insert(500, {"step": 500, "validation/faces": 0.75, "skipped": 0})
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 1001, "lo'
    (folder / "metrics.jsonl").write_text(text)
    for step in range(0, 900, 100):
        Image.new("RGB", (8, 8), (step % 256, 0, 0)).save(folder / "validation" / f"step-{step:06d}.png")
    return folder


@pytest.fixture
def report(tmp_path: Path) -> Path:
    folder = tmp_path / "report"
    folder.mkdir()
    line = {
        "metric": "sim_gt",
        "title": "Sim(GT)",
        "encoder": "e",
        "group": "",
        "value": 0.5,
        "low": 0.4,
        "high": None,
    }
    (folder / "report.json").write_text(json.dumps({"format": "idgen-report-1", "summary": [line]}))
    (folder / "index.html").write_text('<p>"5 < 6"</p><script>alert(1)</script>')
    return folder


def test_curves(run: Path) -> None:
    points: Any
    points, sheets, known = read_run(run, ["loss", "validation/faces", "unknown"])
    assert known == ["loss", "skipped", "validation/faces"]
    loss = points[points["metric"] == "loss"]
    assert len(loss) == MAX_POINTS
    assert loss["value"].iloc[0] == 1.5  # mean of two neighbours
    assert loss["value"].mean() == pytest.approx(500.5)
    assert points[points["metric"] == "validation/faces"][["step", "value"]].to_numpy().tolist() == [[500, 0.75]]
    assert [name for _, name in sheets] == [f"step-{step:06d}" for step in range(800, 200, -100)]


def test_report(report: Path) -> None:
    figures, page = read_figures(report)
    assert figures.to_numpy().tolist()[0][:5] == ["Sim(GT)", "e", "", 0.5, 0.4]
    assert page.startswith("<iframe sandbox srcdoc=")
    assert "<script>" not in page


def test_other_folders_are_refused(run: Path, report: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    runs = folders_by_name([run, tmp_path / "empty"])
    assert named_folder(runs, "first", "run") == run
    for name in ("../first", str(run), "report"):
        with pytest.raises(DemoError, match="Named at the start: first, empty"):
            named_folder(runs, name, "run")
    with pytest.raises(DemoError, match=r"no metrics\.jsonl"):
        read_run(tmp_path / "empty", [])
    with pytest.raises(EvaluationError, match="There is no file"):
        read_figures(run)


def test_on_the_page(serve: Any, run: Path, report: Path) -> None:
    pipe = make_pipeline()
    pipe.load_id_adapter(make_adapter(pipe.unet, encoder=DlibEncoder.name, embedding_dim=128))
    client = serve(pipe, runs=[run], reports=[report]).client()
    plot, sheets, known = client.predict("first", ["loss"], api_name="/training")
    assert len(plot["data"]) == MAX_POINTS
    assert len(sheets) == 6
    assert "loss" in known
    figures, page = client.predict("report", api_name="/report")
    assert figures["data"][0][0] == "Sim(GT)"
    assert "iframe" in page
    with pytest.raises(Exception, match="choices"):
        client.predict("/etc", api_name="/report")
    client.close()
