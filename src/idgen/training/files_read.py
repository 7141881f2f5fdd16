"""The files that a run reads but does not train. A resumed run must find the same contents under their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..weights_key import files_key
from .faces import SUFFIXES

PLACES = (
    "adapter.beside",
    "data.moves",
    "faces.detector",
    "faces.distilled",
    "faces.vae",
    "losses.moved",
    "losses.older_adapter",
    "losses.prior_dir",
    "losses.styles",
    "rewards.aesthetic_clip",
    "rewards.aesthetic_head",
    "rewards.structure_scorer",
    "rollout.detector",
    "rollout.vae",
)
"""Settings that name files or folders."""

READ = {".safetensors", ".json", ".onnx", *SUFFIXES}
"""What is read in a folder."""


def contents(settings: Mapping[str, Any]) -> dict[str, str]:
    """Place → a hash of the file, or of the networks and pictures in the folder. Names of the hub are left out.

    Args:
        settings: Nested settings of a run.
    """
    found: dict[str, str] = {}
    for setting in PLACES:
        group, _, name = setting.partition(".")
        value = settings.get(group, {}).get(name) or ()
        for place in map(str, [value] if isinstance(value, str | Path) else value):
            if files := _files(Path(place)):
                found[place] = files_key(files)
    return found


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return sorted(file for file in place.iterdir() if file.suffix.lower() in READ and file.is_file())
    return [place] if place.is_file() else []
