"""Prepare a set: the plan, the shards, the step over the whole set, and the manifest."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from .. import __version__
from ..errors import DataError
from ..faces import FaceAnalyzer, register_encoder
from .assign import Assigned, AssignOptions, assign_people
from .bank import FOLDER
from .bank_writing import count_groups, write_bank
from .engines import Engine, InProcess
from .index import FORMAT, read_index, readable_metadata, usable_rows
from .manifest import NAME, Manifest, check_encoder, check_shard
from .scrub import Scrubber
from .shard import InputShard, ShardWorker
from .sources import Layout, Source, find_sources
from .storage import PARTIAL, delete, find, join, lies_in, locked

Progress: TypeAlias = Callable[[str, int], object]
"""Called with the name of each finished shard, and the number of its inputs."""

_OF_A_SHARD = re.compile(r"(\d{6,})\.(tar|parquet|[^.]+\.safetensors)")


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Settings of a prepared set.

    Attributes:
        photos: Folder, URL, table or archive of the photos.
        output: Folder or URL of the set.
        layout: Layout of the photos; see `find_sources`.
        encoder: Face encoder, as `open_encoder` opens it.
        shard_size: Inputs per shard.
        min_face: Smallest width of a face in pixels; smaller faces are dropped.
        scrub: spaCy pipeline with which people's data are removed from captions; see `Scrubber`. None to keep them.
        people: How faces are assigned to people, and people to splits.
    """

    photos: str
    output: str
    layout: Layout = "folders"
    encoder: str = "dlib-resnet-v1"
    shard_size: int = 1000
    min_face: float = 24.0
    scrub: str | None = None
    people: AssignOptions = field(default_factory=lambda: AssignOptions(shares={"test": 0.05, "validation": 0.05}))

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise DataError(f"shard_size must be >= 1, got {self.shard_size}.")
        shares = self.people.shares
        if any(share < 0 for share in shares.values()) or sum(shares.values()) > 1:
            raise DataError(f"The shares of the splits must be >= 0 and their sum at most 1, got {dict(shares)}.")


def prepare(options: PrepareOptions, engine: Engine | None = None, progress: Progress | None = None) -> Manifest:
    """Prepare a set, or continue an interrupted one with the same result. The output is locked meanwhile.

    Args:
        options: How the set is prepared.
        engine: Processes the shards; by default, this process does.
        progress: Called with the name of each finished shard, and the number of its inputs.

    Returns:
        The manifest, which is also written.

    Raises:
        DataError: There are no photos, none is usable, the output cannot be written, or another process is writing
            to it.
        EncoderMismatchError: The output holds shards of another encoder.
    """
    spec, options = options.encoder, replace(options, encoder=register_encoder(options.encoder))
    analyzer = partial(FaceAnalyzer.open, spec)
    sources = find_sources(options.photos, options.layout)
    _check_output(options)
    scrubber = None if options.scrub is None else Scrubber(options.scrub)
    if scrubber is not None:
        scrubber.check()
    worker = ShardWorker(options.output, analyzer, options.min_face, scrubber)
    with locked(options.output):
        return _prepare(options, sources, worker, engine, progress)


def _prepare(
    options: PrepareOptions,
    sources: Iterator[Source],
    worker: ShardWorker,
    engine: Engine | None,
    progress: Progress | None,
) -> Manifest:
    inputs: dict[str, int] = {}

    def plan() -> Iterator[InputShard]:
        for shard in input_shards(sources, options.shard_size):
            inputs[shard.name] = len(shard.sources)
            yield shard

    delete(join(options.output, NAME))  # the set is unfinished until the end
    for name in (engine or InProcess()).run(plan(), worker):
        if progress is not None:
            progress(name, inputs[name])
    names = list(inputs)
    if not names:
        raise DataError(f"There are no photos in '{options.photos}' (layout '{options.layout}').")
    _delete_others(options.output, names)
    metadata = check_shard(options.output, names[0], options.encoder)
    assigned = assign_people(options.output, names, options.encoder, options.people)
    write_bank(options.output, names, int(metadata["dim"]))
    manifest = _describe(options, names, metadata, assigned)
    manifest.save(options.output)
    return manifest


def count_sources(options: PrepareOptions) -> int | None:
    """The number of inputs, if it can be known without reading them: of a folder on a disk."""
    if options.layout not in ("folders", "flat") or not Path(options.photos).is_dir():
        return None
    return sum(1 for _ in find_sources(options.photos, options.layout))


def input_shards(sources: Iterator[Source], size: int) -> Iterator[InputShard]:
    """The plan: inputs in their order, split into shards, never all in memory."""
    for number in itertools.count():
        if not (part := tuple(itertools.islice(sources, size))):
            return
        yield InputShard(number, part)


def _check_output(options: PrepareOptions) -> None:
    """Refuse an output among the photos, or one of another encoder, before anything is changed."""
    if lies_in(options.output, options.photos):
        raise DataError(f"The output '{options.output}' is among the photos. Choose a folder outside of them.")
    first = join(options.output, f"{InputShard(0, ()).name}.parquet")
    if found := readable_metadata(first):
        check_encoder(first, found, options.encoder)


def _delete_others(output: str, names: Sequence[str]) -> None:
    """Delete shards of an earlier run with more photos, and partial files of a killed run."""
    wanted = set(names)
    for url in [*find(output), *find(join(output, FOLDER))]:
        file = url.rsplit("/", 1)[-1]
        shard = _OF_A_SHARD.fullmatch(file)
        if file.endswith(PARTIAL) or (shard and shard[1] not in wanted):
            delete(url)


def _describe(options: PrepareOptions, names: Sequence[str], metadata: dict[str, str], assigned: Assigned) -> Manifest:
    about = {name: check_shard(options.output, name, options.encoder) for name in names}
    scrubbed = sum((Counter(json.loads(told.get("scrubbed", "{}"))) for told in about.values()), Counter[str]())
    columns = ("key", "face", "person", "split", "dropped", "aside", "label", "reference")
    table = pa.concat_tables([read_index(join(options.output, f"{name}.parquet"), columns) for name in names])
    faces = table.filter(table["face"].is_valid())
    usable = faces.filter(pa.array(usable_rows(faces)))
    people = usable.group_by(["split", "person"]).aggregate([([], "count_all"), ("reference", "sum")])
    photos, split_of = people["count_all"].to_numpy(), people["split"].to_numpy()
    references = people["reference_sum"].to_numpy()
    return Manifest(
        format=FORMAT,
        encoder=options.encoder,
        dim=int(metadata["dim"]),
        detector=metadata["detector"],
        shards={name: told["tar_sha256"] for name, told in about.items()},
        counts={
            "inputs": _distinct(table["key"]),
            "photos": _distinct(faces["key"]),
            "faces": len(faces),
            "named": _distinct(table["label"]),
            **_count(photos, references),
        },
        dropped=_reasons(table["dropped"]),
        aside=_reasons(table["aside"]),
        scrubbed=dict(sorted(scrubbed.items())),
        splits={
            split: _count(photos[split_of == split], references[split_of == split])
            for split in sorted(people["split"].unique().to_pylist())
        },
        settings=_settings(options),
        thresholds=assigned.thresholds,
        similarity=_histograms(assigned),
        groups=count_groups(options.output),
        versions={"idgen": __version__, **{name: version(name) for name in ("torch", "pyarrow")}},
    )


def _distinct(column: pa.ChunkedArray) -> int:
    return len(column.drop_null().unique())


def _reasons(column: pa.ChunkedArray) -> dict[str, int]:
    """Reason → count, the most frequent first."""
    counts = {row["values"]: row["counts"] for row in column.drop_null().value_counts().to_pylist()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _count(photos: np.ndarray, references: np.ndarray) -> dict[str, int]:
    """Of the numbers of people's photos and references: people, faces, people with a pair, and pairs of a photo and
    another one as its reference."""
    return {
        "people": len(photos),
        "usable": int(photos.sum()),
        "people_with_pairs": int((photos > 1).sum()),
        "pairs": int((references * (photos - 1)).sum()),
    }


def _histograms(assigned: Assigned) -> dict[str, list[float]]:
    least = min((float(part.min()) for part in (assigned.genuine, assigned.impostor) if len(part)), default=-1.0)
    edges = np.linspace(least, 1, 61)
    return {
        "edges": edges.tolist(),
        "same": np.histogram(assigned.genuine, edges)[0].tolist(),
        "different": np.histogram(assigned.impostor, edges)[0].tolist(),
    }


def _settings(options: PrepareOptions) -> dict[str, Any]:
    """The options without paths, which are private."""
    settings = asdict(options)
    del settings["photos"], settings["output"]
    settings["people"]["test_people"] = len(options.people.test_people)
    if options.people.budget is not None:
        del settings["people"]["budget"]["like"]
    return settings
