"""The photos as they come in tars, and the people nobody trains on."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image


def read_photos(folder: Path) -> Iterator[tuple[str, str, np.ndarray]]:
    """All photos of `Name/Name_0001.jpg` in the tars of a folder, in a fixed order.

    Yields:
        Name of the person, name of the file, and the RGB picture (height, width, 3) uint8.
    """
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise FileNotFoundError(f"There are no tars of photos in '{folder}'; set IDGEN_SHARED or paths.photos.")
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and (data := tar.extractfile(member)):
                    person, _, file = member.name.rpartition("/")
                    yield person, file, np.asarray(Image.open(BytesIO(data.read())).convert("RGB"))


def test_people(file: Path) -> frozenset[str]:
    """Names of the people held out: the lines of the split file that are not comments."""
    return frozenset(line for line in file.read_text().splitlines() if line and not line.startswith("#"))
