"""Making small folders of photos, preparing them, and looking at what came out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from skimage import data

from idgen.data.assign import AssignOptions
from idgen.data.engines import Engine
from idgen.data.index import read_index
from idgen.data.manifest import Manifest
from idgen.data.prepare import PrepareOptions, prepare
from idgen.data.storage import join

EVERYBODY = AssignOptions(shares={})
"""All people in the training split."""


def portrait(side: int = 128, shift: int = 0) -> Image.Image:
    """The astronaut's face and little else, so that the detector is quick; another shift is another photo."""
    return Image.fromarray(data.astronaut()).crop((140 + shift, 20, 320 + shift, 220)).resize((side, side))


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    """Save a photo, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def blank(side: int = 64) -> Image.Image:
    """A photo of nobody."""
    return Image.new("RGB", (side, side), "grey")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def make_set(photos: Path | str, output: Path | str, engine: Engine | None = None, **options: Any) -> Manifest:
    options = {"people": EVERYBODY} | options
    return prepare(PrepareOptions(photos=str(photos), output=str(output), **options), engine)


def index(output: Path | str) -> pa.Table:
    """The rows of all shards."""
    names = Manifest.open(str(output)).shards
    return pa.concat_tables([read_index(join(str(output), f"{name}.parquet")) for name in names])


def fates(output: Path | str) -> dict[str, str]:
    """Source → why it is in no sample, or "usable"."""
    rows = index(output).to_pylist()
    return {row["source"]: row["dropped"] or row["aside"] or "usable" for row in rows}


def contents(output: Path | str) -> dict[str, bytes]:
    """Path within the folder → bytes, of all files."""
    folder = Path(output)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_nothing_is_missing(manifest: Manifest, output: Path | str, inputs: int) -> None:
    """Each input and each face is in exactly one count of the manifest."""
    rows = index(output).to_pylist()
    assert manifest.counts["inputs"] == len({row["key"] for row in rows}) == inputs
    with_face = {row["key"] for row in rows if row["face"] is not None}
    without = Counter(row["dropped"] for row in rows if row["face"] is None)
    assert None not in without
    assert manifest.counts["photos"] == len(with_face) == inputs - sum(without.values())
    small = manifest.dropped.get("small-face", 0)
    assert manifest.dropped == without + Counter({"small-face": small})
    assert manifest.counts["faces"] == small + sum(manifest.aside.values()) + manifest.counts["usable"]
    assert manifest.counts["usable"] == sum(split["usable"] for split in manifest.splits.values())
