"""The report of a prepared set: a self-contained page with its content, and with what was dropped and why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ..pages import figure_uri, new_figure, picture_uri, render_page
from .columns import open_photo
from .index import read_index, usable_rows
from .manifest import Manifest
from .storage import join, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 12
MEANINGS = {
    "no-face": "the detector found no face",
    "small-face": "narrower than the smallest width that was set",
    "unreadable": "not a picture, or a damaged one",
    "too-large": "more pixels or bytes than are safe to open",
    "needs-heic": "HEIC photos, which need: pip install 'idgen-diffusers[heic]'",
    "missing": "named by a table or a link, but does not exist or cannot be read",
    "companion": "a picture that belongs to a photo, such as a mask",
    "symlink-loop": "a link to a folder that was already visited",
    "empty-folder": "an empty folder",
    "unreadable-folder": "a folder that cannot be opened",
    "unclear-reference": "`reference` is neither true nor false",
    "unclear-landmarks": "`landmarks` are not ten numbers of five points",
    "sidecar-without-photo": "a caption without a photo of the same name",
    "duplicate": "the same file as another one",
    "near-duplicate": "the same photo as another one of this person, in another file",
    "far-from-person": "not similar to the person's other photos: most likely another person under this name",
    "over-budget": "not needed for `--budget`: its person, or the other photos of the person, were chosen before it",
    "no-reference": "a photo that may only be a target, of a person without a reference",
}
_MANY = 20  # photos per person in the last bar
_SHOWN = ["size", "sharpness", "yaw", "person"]
_COLUMNS = ("key", "source", "offset", "length", "box", "dropped", "aside", *_SHOWN)


def write_report(shards: str, manifest: Manifest) -> str:
    """Write `report.html` into the set.

    The page shows faces that were set aside, so that they can be checked: it is as private as the photos.

    Args:
        shards: Folder or URL of the set.
        manifest: Manifest of the set.

    Returns:
        Path or URL of the page.

    Raises:
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    examples: dict[str, list[dict[str, str]]] = {}
    shown: list[pa.Table] = []
    for name in manifest.shards:
        table = read_index(join(shards, f"{name}.parquet"), _COLUMNS)
        _add_examples(examples, join(shards, f"{name}.tar"), table)
        shown.append(table.filter(pa.array(usable_rows(table))).select(_SHOWN))
    html = render_page(
        "idgen.data",
        "report.html.jinja",
        m=manifest,
        meanings=MEANINGS,
        plots=list(_plots(manifest, pa.concat_tables(shown))),
        examples=examples,
    )
    url = join(shards, "report.html")
    with write_file(url) as path:
        path.write_text(html, encoding="utf-8")
    return url


def similarity_figure(manifest: Manifest) -> Figure | None:
    """Two histograms: the cosines of pairs of one person, and of pairs of different people; None without any pair.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    edges, same, different = (np.asarray(manifest.similarity[kind]) for kind in ("edges", "same", "different"))
    if not same.sum() + different.sum():
        return None
    figure, axes = new_figure(4.4, 3)
    for counts, label in ((different, "different people"), (same, "the same person")):
        if counts.sum():
            axes.stairs(counts / counts.sum(), edges, fill=True, alpha=0.6, label=label)
    if same_person := manifest.thresholds.get("same_person"):
        axes.axvline(same_person, color="black", linestyle="--", linewidth=1, label="threshold for the same person")
    axes.set_ylabel("share of pairs")
    axes.legend()
    return figure


def _plots(manifest: Manifest, usable: pa.Table) -> Iterator[dict[str, str]]:
    if similarity := similarity_figure(manifest):
        yield {"title": "cosine of two faces", "image": figure_uri(similarity)}
    if not len(usable):
        return
    people = usable.group_by("person").aggregate([([], "count_all")])["count_all"].to_numpy()
    figure, axes = new_figure(4.4, 3)
    axes.hist(np.minimum(people, _MANY), np.arange(0.5, _MANY + 1).tolist(), log=True)
    axes.set_xticks([1, *range(5, _MANY + 1, 5)])
    axes.set_ylabel("people")
    yield {"title": f"photos of a person ({_MANY}: as many or more)", "image": figure_uri(figure)}
    for title, values in {
        "width of the face in pixels": usable["size"].to_numpy(),
        "yaw in degrees": usable["yaw"].to_numpy(),
        "sharpness, as a power of ten (variance of the Laplacian)": np.log10(
            np.maximum(usable["sharpness"].to_numpy(), 1e-3)
        ),
    }.items():
        figure, axes = new_figure(4.4, 3)
        axes.hist(values, 40)
        axes.set_ylabel("faces")
        yield {"title": title, "image": figure_uri(figure)}


def _add_examples(found: dict[str, list[dict[str, str]]], tar: str, table: pa.Table) -> None:
    """Add the first few examples of each reason, with the face if there is one."""
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
    return picture_uri(face)
