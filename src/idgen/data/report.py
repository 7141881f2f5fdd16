"""The report of a set: one self-contained page of what is in it, and what was dropped and why."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ..errors import MissingDependencyError
from .columns import open_photo
from .index import read_index, usable_rows
from .manifest import Manifest
from .storage import join, write_file

EXAMPLES = 12
MEANINGS = {
    "no-face": "the detector found nobody",
    "small-face": "narrower than the least width that was set",
    "unreadable": "not a picture, or a damaged one",
    "too-large": "more pixels or bytes than are safe to open",
    "needs-heic": "HEIC photos, which need: pip install 'idgen-diffusers[heic]'",
    "missing": "named by a table or a link, but not there or not readable",
    "companion": "a picture that belongs to a photo, such as a mask",
    "symlink-loop": "a folder that was visited before",
    "empty-folder": "nothing in it",
    "unreadable-folder": "may not be opened",
    "unclear-reference": "`reference` is neither true nor false",
    "unclear-landmarks": "`landmarks` are not ten numbers of five points",
    "sidecar-without-photo": "a caption, and no photo of the same name",
    "duplicate": "the same file as another one",
    "near-duplicate": "the same photo as another one of this person, in another file",
    "far-from-person": "not like the person's other photos: somebody else under this name, most likely",
    "no-reference": "a photo that may only be a target, of a person without a reference",
}
_MANY = 20  # photos of a person that stand in the last bar
_SHOWN = ["size", "sharpness", "yaw", "person"]
_COLUMNS = ("key", "source", "offset", "length", "box", "dropped", "aside", *_SHOWN)


def write_report(shards: str, manifest: Manifest) -> str:
    """Write `report.html` into the set.

    The page shows faces that were set aside, so that a person can judge them: it is as private as the photos.

    Args:
        shards: Folder or URL of the set.
        manifest: Of the set.

    Returns:
        Where the page is.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader
    except ImportError as error:
        raise MissingDependencyError("The report needs jinja2: pip install 'idgen-diffusers[data]'") from error

    examples: dict[str, list[dict[str, str]]] = {}
    shown: list[pa.Table] = []
    for name in manifest.shards:
        table = read_index(join(shards, f"{name}.parquet"), _COLUMNS)
        _add_examples(examples, join(shards, f"{name}.tar"), table)
        shown.append(table.filter(pa.array(usable_rows(table))).select(_SHOWN))
    page = Environment(loader=PackageLoader("idgen.data"), autoescape=True).get_template("report.html.jinja")
    html = page.render(
        m=manifest,
        meanings=MEANINGS,
        plots=list(_plots(manifest, pa.concat_tables(shown))),
        examples=examples,
    )
    url = join(shards, "report.html")
    with write_file(url) as path:
        path.write_text(html, encoding="utf-8")
    return url


def similarity_figure(manifest: Manifest) -> Any:
    """Two histograms: the cosines of pairs of one person, and of different people. None without any pair.

    Args:
        manifest: Of the set.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    edges, same, different = (np.asarray(manifest.similarity[kind]) for kind in ("edges", "same", "different"))
    if not same.sum() + different.sum():
        return None
    figure, axes = _figure()
    for counts, label in ((different, "different people"), (same, "the same person")):
        if counts.sum():
            axes.stairs(counts / counts.sum(), edges, fill=True, alpha=0.6, label=label)
    if same_person := manifest.thresholds.get("same_person"):
        axes.axvline(same_person, color="black", linestyle="--", linewidth=1, label="taken for one person")
    axes.set_ylabel("share of pairs")
    axes.legend()
    return figure


def _plots(manifest: Manifest, usable: pa.Table) -> Iterator[dict[str, str]]:
    if similarity := similarity_figure(manifest):
        yield {"title": "cosine of two faces", "image": _png(similarity)}
    if not len(usable):
        return
    people = usable.group_by("person").aggregate([([], "count_all")])["count_all"].to_numpy()
    figure, axes = _figure()
    axes.hist(np.minimum(people, _MANY), np.arange(0.5, _MANY + 1), log=True)
    axes.set_xticks([1, *range(5, _MANY + 1, 5)])
    axes.set_ylabel("people")
    yield {"title": f"photos of a person ({_MANY}: as many or more)", "image": _png(figure)}
    for title, values in {
        "width of the face in pixels": usable["size"].to_numpy(),
        "yaw in degrees": usable["yaw"].to_numpy(),
        "sharpness, as a power of ten (variance of the Laplacian)": np.log10(
            np.maximum(usable["sharpness"].to_numpy(), 1e-3)
        ),
    }.items():
        figure, axes = _figure()
        axes.hist(values, 40)
        axes.set_ylabel("faces")
        yield {"title": title, "image": _png(figure)}


def _add_examples(found: dict[str, list[dict[str, str]]], tar: str, table: pa.Table) -> None:
    """Of each reason the first few, with the face where there is one."""
    for i, (aside, dropped) in enumerate(zip(table["aside"].to_pylist(), table["dropped"].to_pylist(), strict=True)):
        reason = dropped or aside
        if reason and len(found.setdefault(reason, [])) < EXAMPLES:
            row = table.slice(i, 1).to_pylist()[0]
            found[reason].append({"source": row["source"], "image": _face(tar, row)})


def _face(tar: str, row: dict[str, Any]) -> str:
    if row["offset"] is None or row["box"] is None:
        return ""
    photo = Image.fromarray(open_photo(tar, row))
    x0, y0, x1, y1 = (round(v) for v in row["box"])
    face = photo.crop((x0, y0, x1, y1)).resize((84, 84))
    buffer = io.BytesIO()
    face.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure() -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure  # not pyplot: it keeps figures, and asks for a display
    except ImportError as error:
        raise MissingDependencyError("Diagrams need matplotlib: pip install 'idgen-diffusers[data]'") from error
    figure = Figure(figsize=(4.4, 3), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
