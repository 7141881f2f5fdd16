"""`metrics.jsonl`: a row for each update and each validation of a run, as JSON that every reader takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import TrainingError
from ..files import unwritten, write_whole

NAME = "metrics.jsonl"


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Add a row; numbers that are not finite become null, which JSON has instead.

    Raises:
        TrainingError: The file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(_line(row))
    except OSError as error:
        raise TrainingError(unwritten(file, error)) from error


def read_rows(file: Path) -> list[dict[str, Any]]:
    """All rows, oldest first; none if there is no file. A number that was not finite is None.

    A line that is not a row is left out: a crash may have cut the last one.
    """
    if not file.exists():
        return []
    return [row for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if (row := _row(line))]


def cut_rows(file: Path, step: int) -> None:
    """Remove what was recorded after an update, so that a run which goes on from there records it once.

    Raises:
        TrainingError: The file cannot be written.
    """
    if not file.exists():
        return
    rows = [row for row in read_rows(file) if row["step"] <= step]
    with write_whole(file, TrainingError) as new:
        new.write_text("".join(map(_line, rows)), encoding="utf-8")


def _line(row: Mapping[str, Any]) -> str:
    finite = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
