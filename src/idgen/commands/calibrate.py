"""`idgen calibrate`: the statistics of face encoders, on photos of many people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import Console
from rich.table import Table

from ..errors import StatisticsError
from ..inputs import EncoderSpec, InputPlace
from ..terminal import say, show, visible

if TYPE_CHECKING:
    from ..evaluation.calibration import Calibrated
    from ..evaluation.intervals import Interval


def run(
    photos: Annotated[InputPlace, tyro.conf.Positional],
    /,
    encoder: tuple[EncoderSpec, ...] = (),
    rates: tuple[float, ...] = (1e-2, 1e-3),
    output: Path | None = None,
) -> None:
    """Measure how the similarities of face encoders lie on photos of many people. docs/encoders.md explains it.

    idgen calibrate shards/ --encoder insightface/buffalo_l

    idgen calibrate photos/ --encoder dlib-resnet-v1 imagenet:mobilefacenet.onnx

    The error rates at the thresholds of everybody are also shown for each group of people that the shards name, and
    for photos by pose and size of the face, with the largest differences between two groups.
    Losses, rewards, duplicates, blocklists, reports and invented people use the statistics afterwards.

    Args:
        photos: Shards of `idgen prepare`, or a folder with a folder of photos for each person. At least 450 people are
            needed, 50 of them with two photos.
        encoder: Face encoders; docs/encoders.md describes them. Defaults to that of the shards.
        rates: False-match rates: the thresholds that this share of the pairs of different people exceeds.
        output: File for the statistics of one encoder. By default they are written where all commands of this machine
            look for them.
    """
    from ..evaluation.calibration import calibrate
    from ..faces.statistics import statistics_file

    if output is not None and len(encoder) > 1:
        raise StatisticsError("--output is a file for the statistics of one encoder.")
    for found in calibrate(photos, encoder, rates):
        file = output or statistics_file(found.statistics.encoder)
        file.parent.mkdir(parents=True, exist_ok=True)
        found.statistics.save(file)
        Console().print(_table(found))
        for gap in found.gaps:
            if gap.difference.low > 0:
                text = f"{gap.figure}: '{gap.highest}' exceeds '{gap.lowest}' by {_spell(gap.difference)}"
                say(f"By {gap.by}, {text}")
        show(file)


def _table(found: Calibrated) -> Table:
    table = Table(title=visible(found.statistics.encoder), caption="95 % intervals over people in parentheses")
    for title in ("group", "people", "one person", "two people", "EER", "threshold", "false matches", "missed"):
        table.add_column(title)
    for group in found.groups:
        means = (_spell(group.genuine), _spell(group.impostor), _spell(group.equal_error, ".2%"))
        name = f"{group.by}: {group.group}" if group.by else group.group
        cells = [visible(name), f"{group.people:,}", *means]
        for rate in group.rates:
            table.add_row(*cells, f"{rate.threshold:.3f}", _spell(rate.false_match, ".2%"), _spell(rate.missed, ".2%"))
            cells = [""] * len(cells)
    return table


def _spell(figure: Interval, form: str = ".3f") -> str:
    return f"{figure.value:{form}} ({figure.low:{form}} … {figure.high:{form}})"
