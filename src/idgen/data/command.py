"""`idgen prepare`: options of the command line → a set, or the report of one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from ..errors import DataError, MissingDependencyError
from .facts import clean, decode

if TYPE_CHECKING:
    from .engines import Engine
    from .manifest import Manifest
    from .prepare import PrepareOptions


@dataclass(frozen=True, kw_only=True)
class PrepareArguments:
    """What the command line sets.

    Attributes:
        photos: Where the photos are: a folder, a tar, a zip or a table, also at any address that fsspec opens (s3://,
            gs://, hf://).
        output: Where the shards go.
        layout: "folders": one folder a person; "flat": people unknown, they are found; "webdataset": tars
            or zips; "parquet", "csv" and "jsonl": tables with columns path or image, person, caption, licence.
        engine: "local": processes of this machine; "ray": Ray Data, here or on a cluster; "inprocess": no others.
        workers: Processes or actors; as many as there are cores if 0.
        address: Of a running Ray cluster ("auto" finds it); one is started here without.
        encoder: Face encoder: the default, or "insightface/" and the name of a pack.
        shard_size: Photos in a shard.
        min_face: Faces narrower than so many pixels are dropped.
        threshold: Cosine above which two faces are one person; without, it is measured on the set.
        test_share: Share of the people kept for the last test.
        validation_share: Share of the people kept to watch a training with.
        test_people: File with a name a line: people that are kept for the test whatever their share.
        seed: Of the splits.
        report: Only write the report of a set that is there.
        cache: Columns to write, of the set that is being made or of the one in `output`: "augmented" (references of
            people with one photo), "latents" and "text" (of the model `base`), "features" (of the CLIP image encoder
            `base`).
        base: Model that latents and text are cached for: a folder, a hub id, or "tiny".
        resolution: Of the pictures that latents are made of.
    """

    photos: Annotated[str, tyro.conf.Positional] = ""
    output: str = ""
    layout: Literal["folders", "flat", "webdataset", "parquet", "csv", "jsonl"] = "folders"
    engine: Literal["local", "ray", "inprocess"] = "local"
    workers: int = 0
    address: str | None = None
    encoder: str = "dlib-resnet-v1"
    shard_size: int = 1000
    min_face: float = 24.0
    threshold: float | None = None
    test_share: float = 0.05
    validation_share: float = 0.05
    test_people: Path | None = None
    seed: int = 0
    report: str = ""
    cache: tuple[str, ...] = ("augmented",)
    base: str = "tiny"
    resolution: int = 512


def run_prepare(arguments: PrepareArguments) -> str:
    """Prepare, and write `report.html` into the set; returns its place.

    Raises:
        DataError: Something is missing, cannot be read or written.
        MissingDependencyError: What the extra "data" brings is not installed.
    """
    try:
        from tqdm import tqdm

        from .cache import write_caches
        from .manifest import Manifest
        from .prepare import prepare
        from .set_report import write_report
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"Preparing needs {error.name}: pip install 'idgen-diffusers[data]'") from error

    if arguments.report:
        return write_report(arguments.report, Manifest.open(arguments.report))
    if not arguments.output or not (arguments.photos or arguments.cache):
        raise DataError("Say where the photos are and where the shards go: idgen prepare photos/ --output shards/")
    engine = _engine(arguments)
    if arguments.photos:
        with tqdm(unit=" shards", desc="shards") as bar:
            manifest = prepare(_options(arguments), engine, lambda _: bar.update())
        Console(stderr=True).print(told(manifest), markup=False, highlight=False, soft_wrap=True)
    base, resolution = arguments.base, arguments.resolution
    with tqdm(unit=" shards", desc="columns") as bar:
        write_caches(
            arguments.output,
            arguments.cache,
            base=base,
            resolution=resolution,
            engine=engine,
            progress=lambda _: bar.update(),
        )
    return write_report(arguments.output, Manifest.open(arguments.output))


def told(manifest: Manifest) -> str:
    """What the terminal says of a set: its people, and what is in no sample and why."""
    counts = manifest.counts
    lines = [
        f"{counts['people']:,} people, {counts['people_with_pairs']:,} of them with two photos or more; "
        f"{counts['usable']:,} usable faces from {counts['inputs']:,} inputs."
    ]
    for title, reasons in (("Dropped", manifest.dropped), ("Set aside", manifest.aside)):
        if reasons:
            lines.append(f"{title}: {', '.join(f'{count:,} {reason}' for reason, count in reasons.items())}.")
    return "\n".join(lines)


def _options(arguments: PrepareArguments) -> PrepareOptions:
    from .assign import AssignOptions
    from .prepare import PrepareOptions

    return PrepareOptions(
        photos=arguments.photos,
        output=arguments.output,
        layout=arguments.layout,
        encoder=arguments.encoder,
        shard_size=arguments.shard_size,
        min_face=arguments.min_face,
        people=AssignOptions(
            threshold=arguments.threshold,
            shares={"test": arguments.test_share, "validation": arguments.validation_share},
            test_people=_names(arguments.test_people),
            seed=arguments.seed,
        ),
    )


def _engine(arguments: PrepareArguments) -> Engine:
    from .engines import InProcess, LocalProcesses

    workers = arguments.workers or os.cpu_count() or 1
    if arguments.engine == "ray":
        from .engines import RayData

        return RayData(workers, arguments.address)
    return InProcess() if arguments.engine == "inprocess" else LocalProcesses(workers)


def _names(file: Path | None) -> frozenset[str]:
    if file is None:
        return frozenset()
    try:
        names = (clean(line) for line in decode(file.read_bytes()).splitlines())
    except OSError as error:
        raise DataError(f"'{file}' cannot be read as a list of names: {error}") from error
    return frozenset(name for name in names if name)
