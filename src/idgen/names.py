"""The nearest known name to a misspelt one, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

SD15, SDXL = "stable-diffusion-v1-5/stable-diffusion-v1-5", "stabilityai/stable-diffusion-xl-base-1.0"
BASES = ("tiny", SD15, SDXL)
"""Base models that are often used: the built-in one, and repositories on the hub."""

ADAPTERS = (
    "InstantX/InstantID",
    "h94/IP-Adapter-FaceID",
    "TencentARC/PhotoMaker",
    "TencentARC/PhotoMaker-V2",
    "guozinan/PuLID",
)
"""Public adapters on the hub."""


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'NAME'?` with the nearest of the known names; empty if none is near."""
    lower = {one.lower(): one for one in known}
    near = get_close_matches(name.lower(), lower, 1)
    return f" Did you mean '{lower[near[0]]}'?" if near and lower[near[0]] != name else ""


def nearest_path(path: str) -> str:
    """As `nearest`, with the files and folders beside a path that does not exist."""
    place = Path(path)
    beside: list[str] = []
    with suppress(OSError, ValueError):
        beside = [str(place.with_name(other.name)) for other in place.parent.iterdir()]
    return nearest(str(place), beside)
