"""`report.json`, `report.csv` and one self-contained `index.html`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ..errors import EvaluationError
from ..faces import load_photo
from ..files import read_json, write_bytes
from ..pages import picture_uri, render_page
from .cases import OWN
from .judges import EncoderRole
from .measure import Measured, Row, Shot
from .metrics import METRICS
from .plots import plots
from .summary import GROUP_METRICS, Summary, group_table, summarise

if TYPE_CHECKING:
    from .compare import Difference

FORMAT = "idgen-report-1"
THUMBNAIL = 128
SHEET_PEOPLE, SHEET_PICTURES = 24, 10


def write_report(
    folder: Path,
    about: Mapping[str, str | float],
    encoders: Sequence[EncoderRole],
    measured: Measured,
    shots: Sequence[Shot],
) -> Summary:
    """Write all three files and return the summary. They hold no embedding; the page shows the photos.

    Args:
        folder: Where they go.
        about: What was measured: name → value.
        encoders: See `encoder_roles`.
        measured: See `measure`.
        shots: In the order of the measured rows.
    """
    summary = summarise(measured)
    headline = next((encoder["name"] for encoder in encoders if encoder["headline"]), encoders[0]["name"])
    report = {
        "format": FORMAT,
        "about": about,
        "encoders": encoders,
        "summary": summary.lines,
        "disparities": summary.disparities,
        "pictures": measured.rows,
        "separability": {
            "probes": measured.probes,
            "gallery": measured.gallery,
            "genuine": measured.genuine.astype(int).tolist(),
            "scores": {name: np.round(scores, 5).tolist() for name, scores in measured.scores.items()},
        },
    }
    page = _render(
        "report.html.jinja",
        report=report,
        plots=list(plots(measured, encoders, summary, headline)),
        groups=group_table(summary, headline),
        group_metrics=GROUP_METRICS,
        sheet=_contact_sheet(shots),
    )
    write_bytes(folder / "report.csv", _csv(measured.rows).encode(), EvaluationError)
    write_bytes(folder / "index.html", page.encode(), EvaluationError)
    text = json.dumps(_plain(report), ensure_ascii=False)
    write_bytes(folder / "report.json", text.encode(), EvaluationError)
    return summary


def read_measured(folder: Path) -> Measured:
    """The measurements in the `report.json` of a folder, without features.

    Raises:
        EvaluationError: There is no report, it cannot be read, or it has a metric that is not in `METRICS`.
    """
    told = read_report(folder)
    try:
        pairs = told["separability"]
        measured = Measured(
            rows=[_row(row) for row in told["pictures"]],
            probes=list(pairs["probes"]),
            gallery=list(pairs["gallery"]),
            genuine=np.array(pairs["genuine"], bool),
            scores={name: np.array(rows, float) for name, rows in pairs["scores"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise EvaluationError(f"The report in '{folder}' cannot be read: {error!r}") from error
    if unknown := sorted({key.partition("/")[0] for row in measured.rows for key in row["values"]} - METRICS.keys()):
        raise EvaluationError(f"The report in '{folder}' has unknown metrics: {', '.join(unknown)}.")
    return measured


def read_report(folder: Path) -> dict[str, Any]:
    """Read `report.json` of a folder. Raises EvaluationError if there is none."""
    try:
        report = read_json(folder / "report.json", EvaluationError)
        if report["format"] != FORMAT:
            raise EvaluationError(f"The report in '{folder}' has the format {report['format']!r}, not {FORMAT!r}.")
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"The report in '{folder}' cannot be read: {error!r}") from error
    return report


def write_comparison(folder: Path, names: tuple[str, str], table: Sequence[Difference]) -> None:
    """`comparison.json` and `index.html` of two reports side by side."""
    page = _render("comparison.html.jinja", names=names, table=table)
    write_bytes(folder / "index.html", page.encode(), EvaluationError)
    text = json.dumps(_plain({"reports": names, "table": table}))
    write_bytes(folder / "comparison.json", text.encode(), EvaluationError)


def _render(template: str, **values: Any) -> str:
    return render_page("idgen.evaluation", template, metrics=METRICS, **values)


def _row(row: dict[str, Any]) -> Row:
    """A row with NaN where JSON has null; rows of earlier versions have one group."""
    values = {key: math.nan if value is None else float(value) for key, value in row["values"].items()}
    earlier = {OWN: row["group"]} if row.get("group") else {}
    told = {name: row[name] for name in ("person", "prompt", "seed", "file")}
    return Row(**told, groups=row.get("groups", earlier), values=values)


def _plain(value: Any) -> Any:
    """The same for JSON, which has no NaN: null."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row["values"]))
    groups = list(dict.fromkeys([OWN, *(by for row in rows for by in row["groups"])]))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["person", *groups, "prompt", "seed", "file", *columns])
    for row in rows:
        values = [row["values"].get(column, math.nan) for column in columns]
        of_groups = [row["groups"].get(by, "") for by in groups]
        told = row["person"], *of_groups, row["prompt"], row["seed"], row["file"]
        writer.writerow([*told, *("" if math.isnan(value) else value for value in values)])
    return text.getvalue()


def _contact_sheet(shots: Sequence[Shot]) -> dict[str, Any]:
    """Reference, target and results of the first people, as data URIs."""
    people: dict[str, list[Shot]] = {}
    for shot in shots:
        people.setdefault(shot.case.name, []).append(shot)
    rows = [
        {
            "person": name,
            "real": [_thumbnail(photo) for photo in own[0].case.photos],
            "drawn": [(_thumbnail(shot.file), f"{shot.prompt} ({shot.seed})") for shot in own[:SHEET_PICTURES]],
        }
        for name, own in list(people.items())[:SHEET_PEOPLE]
    ]
    return {"rows": rows, "people": len(people)}


def _thumbnail(file: Path) -> str:
    image = Image.fromarray(load_photo(file))
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return picture_uri(image)
