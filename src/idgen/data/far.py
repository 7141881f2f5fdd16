"""References that are far from their target, so that a copy of the reference is no solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal, TypeAlias

Far: TypeAlias = Literal["", "pose", "time", "source"]
COLUMNS = ("yaw", "date", "origin")
"""Columns of the index that are read; sets of earlier versions lack some."""


def far_references(far: Far, target: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which photos of a person are far from a target.

    Args:
        far: "pose": the difference of the yaw; "time": that of the dates; "source": another origin.
        target: Row of the index.
        others: Rows of the candidates.

    Returns:
        For each candidate, whether it is at least half as far as the farthest; true for all if nothing is known.
    """
    measure = {"pose": _turn, "time": _days, "source": _origin}[far]
    distances = [measure(target, other) for other in others]
    return [distance >= max(distances) / 2 for distance in distances]


def _turn(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    return _difference(a.get("yaw"), b.get("yaw"))


def _days(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    return _difference(_day(a.get("date")), _day(b.get("date")))


def _origin(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    known = a.get("origin") is not None and b.get("origin") is not None
    return float(known and a["origin"] != b["origin"])


def _difference(a: float | None, b: float | None) -> float:
    return 0.0 if a is None or b is None else abs(a - b)


def _day(text: str | None) -> float | None:
    """A date such as 2019, 2019-05 or 2019-05-31 (also with a time) as a number of days; None for any other text."""
    parts = (text or "").split("T")[0].split(" ")[0].split("-")
    try:
        year, month, day = (int(part) for part in [*parts, "1", "1"][:3])
        return float(date(year, month, day).toordinal())
    except ValueError:
        return None
