"""Figures → `report.json`, `report.csv` and one self-contained `index.html`."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import EvaluationError, MissingDependencyError
from ..faces import load_photo
from ..files import read_json, write_bytes
from .measure import Measured, Shot
from .summary import Scores

FORMAT = "idgen-report-1"
THUMBNAIL = 128
SHEET_PEOPLE, SHEET_PICTURES = 24, 10


def write_report(
    folder: Path,
    about: dict[str, Any],
    encoders: list[dict[str, Any]],
    summary: list[dict[str, Any]],
    measured: Measured,
    shots: Sequence[Shot],
) -> None:
    """Write all three files. No embedding is in them; the page shows the photos.

    Args:
        folder: Where they go.
        about: What was measured, name → value.
        encoders: `name`, `role` and `headline` of each.
        summary: See `summarise`.
        measured: See `measure`.
        shots: In the order of the measured rows.
    """
    report = {
        "format": FORMAT,
        "about": about,
        "encoders": encoders,
        "summary": summary,
        "pictures": measured.rows,
        "separability": {
            "probes": measured.probes,
            "gallery": measured.gallery,
            "genuine": measured.genuine.astype(int).tolist(),
            "scores": {name: np.round(scores, 5).tolist() for name, scores in measured.scores.items()},
        },
    }
    page = _render("report.html.jinja", report=report, plots=_plots(measured, encoders), sheet=_sheet(shots))
    write_bytes(folder / "report.csv", _csv(measured.rows).encode(), EvaluationError)
    write_bytes(folder / "index.html", page.encode(), EvaluationError)
    text = json.dumps(_plain(report), ensure_ascii=False)
    write_bytes(folder / "report.json", text.encode(), EvaluationError)


def read_report(folder: Path) -> dict[str, Any]:
    """`report.json` of a folder; raises EvaluationError if there is none."""
    try:
        report = read_json(folder / "report.json", EvaluationError)
        if report["format"] != FORMAT:
            raise EvaluationError(f"'{folder}' holds a report of the form {report['format']!r}, not {FORMAT!r}.")
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"'{folder}' holds no report that can be read: {error!r}") from error
    return report


def scores_of(report: dict[str, Any]) -> dict[str, Scores]:
    """Scores of a report, by encoder."""
    told = report["separability"]
    genuine = np.array(told["genuine"], bool)
    names = np.array(told["probes"]), np.array(told["gallery"])
    return {name: Scores(np.array(rows, float), genuine, *names) for name, rows in told["scores"].items()}


def write_comparison(folder: Path, names: tuple[str, str], table: list[dict[str, Any]]) -> None:
    """`comparison.json` and `index.html` of two reports side by side."""
    page = _render("comparison.html.jinja", names=names, table=table)
    write_bytes(folder / "index.html", page.encode(), EvaluationError)
    text = json.dumps(_plain({"reports": names, "table": table}))
    write_bytes(folder / "comparison.json", text.encode(), EvaluationError)


def _render(template: str, **values: Any) -> str:
    try:
        from jinja2 import Environment, PackageLoader
    except ImportError as error:
        raise MissingDependencyError("Reports need jinja2: pip install 'idgen-diffusers[evaluate]'") from error
    environment = Environment(loader=PackageLoader("idgen.evaluation", "templates"), autoescape=True)
    environment.filters["figure"] = lambda value: "–" if _is_nan(value) else f"{value:.3f}"
    return environment.get_template(template).render(**values)


def _is_nan(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _plain(value: Any) -> Any:
    """NaN has no place in JSON: null."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row["values"]))
    told = [key for key in rows[0] if key != "values"]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*told, *columns])
    for row in rows:
        values = [row["values"].get(column, math.nan) for column in columns]
        writer.writerow([*(row[key] for key in told), *("" if math.isnan(v) else v for v in values)])
    return text.getvalue()


def _sheet(shots: Sequence[Shot]) -> dict[str, Any]:
    """Reference, target and results of the first people, as data addresses."""
    people: dict[str, list[Shot]] = {}
    for shot in shots:
        people.setdefault(shot.case.name, []).append(shot)
    rows = [
        {
            "person": name,
            "real": [_thumbnail(photo) for photo in (*own[0].case.references, own[0].case.target) if photo],
            "drawn": [(_thumbnail(shot.file), f"{shot.prompt} ({shot.seed})") for shot in own[:SHEET_PICTURES]],
        }
        for name, own in list(people.items())[:SHEET_PEOPLE]
    ]
    return {"rows": rows, "people": len(people)}


def _thumbnail(file: Path) -> str:
    image = Image.fromarray(load_photo(file))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plots(measured: Measured, encoders: list[dict[str, Any]]) -> list[dict[str, str]]:
    from .plots import copy_paste_scatter, similarity_histogram

    plots = []
    for encoder in encoders:
        name = encoder["name"]
        scores = measured.scores[name]
        histogram = similarity_histogram(scores[measured.genuine], scores[~measured.genuine])
        plots.append({"title": f"Pictures against real photos, by {name}", "image": histogram})
        values = [
            (row["values"].get(f"sim_gt/{name}"), row["values"].get(f"copy_paste/{name}")) for row in measured.rows
        ]
        points = np.array([pair for pair in values if None not in pair], float)
        if len(points):
            plots.append({"title": f"Copy-Paste against Sim(GT), by {name}", "image": copy_paste_scatter(points)})
    return plots
