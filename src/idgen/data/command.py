"""`idgen prepare`: options → a prepared set, or the report of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from ..errors import DataError, MissingDependencyError
from ..inputs import AdapterName, EncoderSpec, InputPath, InputPlace
from .engine_options import EngineOptions
from .metadata import clean, decode

if TYPE_CHECKING:
    from .budget import Budget
    from .manifest import Manifest
    from .prepare import PrepareOptions


@dataclass(frozen=True, kw_only=True)
class PrepareArguments:
    """Options of `idgen prepare`.

    Attributes:
        photos: Photos: a folder, a tar, a zip or a table, as path or as URL that fsspec opens (s3://, gs://, hf://).
        output: Folder or URL for the shards.
        layout: "folders": one folder per person; "flat": unknown people, who are found by clustering; "webdataset":
            tars or zips; "parquet", "csv" and "jsonl": tables with columns path or image, person, group, caption,
            licence.
        engine: Which processes do the work.
        encoder: Face encoders; docs/encoders.md describes them. The first one is that of a new set, dlib-resnet-v1 if
            none is given. Embeddings by the others are cached, for losses, rewards and adapters that read them.
        shard_size: Photos per shard.
        min_face: Smallest width of a face in pixels; smaller faces are dropped.
        threshold: Cosine above which two faces are the same person; by default it is measured on the set.
        test_share: Share of the people in the test split.
        validation_share: Share of the people in the validation split.
        test_people: Text file with one name per line: people who are always in the test split.
        scrub: Remove names, e-mail addresses, telephone numbers and dates from captions. The report counts them.
        scrub_model: spaCy pipeline that recognises names: its name or folder.
        seed: Seed of the splits.
        budget: Keep this many faces and set all others aside: people of clusters near those of --like, or evenly of
            all clusters, and of each person the photos that differ most.
        like: Prepared set of the same encoder that --budget chooses people for.
        report: Folder or URL of a prepared set; only its report is written.
        cache: Cached columns to write, for the new set or the one in `output`: "augmented" (embeddings of augmented
            photos, for people with one photo), "embeddings" (of further encoders), "latents" and "text" (of the model
            `base`), "features" (of the CLIP image encoder `base`), "triplets" (latents of the photos with another
            person's face, drawn by `base` with `id_adapter`, for `idgen train reward --rollout.method swap`).
        base: Stable Diffusion model that latents and text are cached for: a folder, a hub id, or "tiny".
        resolution: Resolution of the pictures that are encoded as latents.
        id_adapter: Identity adapter that triplets are drawn with: a folder, a file or a hub id. The small model brings
            its own.
    """

    photos: Annotated[InputPlace | Literal[""], tyro.conf.Positional] = ""
    output: str = ""
    layout: Literal["folders", "flat", "webdataset", "parquet", "csv", "jsonl"] = "folders"
    engine: Annotated[EngineOptions, tyro.conf.arg(name="")] = field(
        default_factory=lambda: EngineOptions(engine="local")
    )
    encoder: tuple[EncoderSpec, ...] = ()
    shard_size: int = 1000
    min_face: float = 24.0
    threshold: float | None = None
    test_share: float = 0.05
    validation_share: float = 0.05
    test_people: InputPath | None = None
    scrub: bool = False
    scrub_model: str = "en_core_web_sm"
    seed: int = 0
    budget: int | None = None
    like: InputPlace | None = None
    report: InputPlace | Literal[""] = ""
    cache: tuple[str, ...] = ("augmented",)
    base: str = "tiny"
    resolution: int = 512
    id_adapter: AdapterName | None = None


def run_prepare(arguments: PrepareArguments) -> str:
    """Prepare a set and write `report.html` into it; returns the path of the report.

    Raises:
        DataError: An option is missing, or a file cannot be read or written.
        MissingDependencyError: The extra "data" is not installed.
    """
    try:
        from tqdm import tqdm

        from .cache import write_caches
        from .manifest import Manifest
        from .prepare import count_sources, prepare
        from .set_report import write_report
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"Preparing needs {error.name}: pip install 'idgen-diffusers[data]'") from error

    if arguments.report:
        return write_report(arguments.report, Manifest.open(arguments.report))
    if not arguments.output or not (arguments.photos or arguments.cache):
        raise DataError("Photos and --output are required: idgen prepare photos/ --output shards/")
    with arguments.engine.open() as engine:
        if arguments.photos:
            options = _options(arguments)
            with tqdm(total=count_sources(options), unit=" photos", desc="photos") as bar:
                manifest = prepare(options, engine, lambda _, photos: bar.update(photos))
            Console(stderr=True).print(told(manifest), markup=False, highlight=False, soft_wrap=True)
        shards = len(Manifest.open(arguments.output).shards) * len(arguments.cache)
        with tqdm(total=shards, unit=" shards", desc="cached columns") as bar:
            write_caches(
                arguments.output,
                arguments.cache,
                base=arguments.base,
                resolution=arguments.resolution,
                id_adapter=arguments.id_adapter,
                encoders=_encoders(arguments),
                engine=engine,
                progress=lambda _: bar.update(),
            )
    return write_report(arguments.output, Manifest.open(arguments.output))


def told(manifest: Manifest) -> str:
    """The summary of a set for the terminal: its people, and what was dropped or set aside."""
    counts = manifest.counts
    lines = [
        f"{counts['people']:,} people, {counts['people_with_pairs']:,} of them with two photos or more; "
        f"{counts['usable']:,} usable faces from {counts['inputs']:,} inputs."
    ]
    for title, reasons in (("Dropped", manifest.dropped), ("Set aside", manifest.aside)):
        if reasons:
            lines.append(f"{title}: {', '.join(f'{count:,} {reason}' for reason, count in reasons.items())}.")
    if manifest.settings.get("scrub") is not None:
        counts = ", ".join(f"{count:,} {kind}" for kind, count in manifest.scrubbed.items())
        lines.append(f"Removed from captions: {counts or 'nothing'}.")
    return "\n".join(lines)


def _encoders(arguments: PrepareArguments) -> list[str]:
    """The encoders, which may also be separated by commas."""
    return [spec for text in arguments.encoder for spec in text.split(",") if spec]


def _options(arguments: PrepareArguments) -> PrepareOptions:
    from .assign import AssignOptions
    from .prepare import PrepareOptions

    return PrepareOptions(
        photos=arguments.photos,
        output=arguments.output,
        layout=arguments.layout,
        encoder=next(iter(_encoders(arguments)), "dlib-resnet-v1"),
        shard_size=arguments.shard_size,
        min_face=arguments.min_face,
        scrub=arguments.scrub_model if arguments.scrub else None,
        people=AssignOptions(
            threshold=arguments.threshold,
            shares={"test": arguments.test_share, "validation": arguments.validation_share},
            test_people=_names(arguments.test_people),
            seed=arguments.seed,
            budget=_budget(arguments),
        ),
    )


def _budget(arguments: PrepareArguments) -> Budget | None:
    from .budget import Budget

    if arguments.budget is None:
        if arguments.like is not None:
            raise DataError("--like requires --budget.")
        return None
    return Budget(faces=arguments.budget, like=arguments.like, seed=arguments.seed)


def _names(file: Path | None) -> frozenset[str]:
    if file is None:
        return frozenset()
    try:
        names = (clean(line) for line in decode(file.read_bytes()).splitlines())
    except OSError as error:
        raise DataError(f"'{file}' cannot be read as a list of names: {error}") from error
    return frozenset(name for name in names if name)
