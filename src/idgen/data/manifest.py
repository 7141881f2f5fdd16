"""The manifest of a prepared set: its content, its settings, and the checksums of its shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import DataError, EncoderMismatchError
from ..files import parse_json
from ..typed import arguments
from .index import index_metadata
from .storage import checksum, exists, join, read_bytes, size, write_file

NAME = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The manifest of a prepared set.

    Attributes:
        format: Format of the shards.
        encoder: Name of the face encoder of all embeddings.
        dim: Length of an embedding.
        detector: Class of the face detector.
        shards: Name → SHA-256 of the tar.
        counts: Number of inputs, photos, faces, people, pairs and so on.
        dropped: Reason → number of inputs or faces that were dropped.
        aside: Reason → number of faces that are in the shards, but set aside.
        scrubbed: Kind → number of people's data that were removed from captions; empty if captions were kept.
        splits: Split → people, faces and pairs in it.
        settings: Settings of `prepare`.
        thresholds: Cosines that were used; see `Assigned`.
        similarity: Histograms "same" and "different" of the cosines of pairs, with bins between "edges".
        versions: Versions of the packages.
        groups: Split → group → people; "" are those without a group. Empty in manifests of earlier versions.
    """

    format: str
    encoder: str
    dim: int
    detector: str
    shards: dict[str, str]
    counts: dict[str, int]
    dropped: dict[str, int]
    aside: dict[str, int]
    splits: dict[str, dict[str, int]]
    settings: dict[str, Any]
    scrubbed: dict[str, int] = field(default_factory=dict)
    thresholds: dict[str, float | None] = field(default_factory=dict)
    similarity: dict[str, list[float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    groups: dict[str, dict[str, int]] = field(default_factory=dict)

    def save(self, output: str) -> None:
        """Write it into the set's folder."""
        with write_file(join(output, NAME)) as path:
            path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, shards: str) -> Manifest:
        """Read the manifest of a set, and check that all shards exist, are complete, and are of one encoder.

        Checksums of a set on a disk are compared once per process; on object stores, which check them, only sizes are.

        Raises:
            DataError: The manifest cannot be read, or a shard is missing, unfinished, damaged or of another set.
            EncoderMismatchError: A shard is of another encoder.
        """
        url = join(shards, NAME)
        if not exists(url):
            raise DataError(f"'{shards}' is not a finished set: it has no {NAME}. Run `idgen prepare` to its end.")
        try:
            told = parse_json(read_bytes(url), f"'{url}'", DataError)
            manifest = cls(**arguments(cls, told, f"'{url}'", DataError))
        except (OSError, DataError) as error:
            raise DataError(f"'{url}' cannot be read: {error} Run `idgen prepare` again.") from error
        for name, expected in manifest.shards.items():
            found = check_shard(shards, name, manifest.encoder)
            if found["tar_sha256"] != expected or not is_whole(join(shards, f"{name}.tar"), found):
                raise DataError(
                    f"The shard '{name}' in '{shards}' is damaged: its checksum differs from the manifest. Run "
                    "`idgen prepare` again."
                )
        return manifest


def is_whole(tar: str, metadata: Mapping[str, str]) -> bool:
    """Whether a tar is the one of its index, by its size, and on a disk also by its checksum."""
    if not exists(tar) or size(tar) != int(metadata["tar_bytes"]):
        return False
    found = checksum(tar)
    return found is None or found == metadata["tar_sha256"]


def check_shard(shards: str, name: str, encoder: str) -> dict[str, str]:
    """The metadata of one finished shard of this encoder; raises like `Manifest.open`."""
    tar, index = (join(shards, f"{name}.{suffix}") for suffix in ("tar", "parquet"))
    if not exists(tar) or not exists(index):
        raise DataError(f"The shard '{name}' is missing in '{shards}', or unfinished. Run `idgen prepare` again.")
    metadata = index_metadata(index)
    check_encoder(index, metadata, encoder)
    if size(tar) != int(metadata["tar_bytes"]):
        raise DataError(f"'{tar}' is truncated or belongs to another index. Run `idgen prepare` again.")
    return metadata


def check_encoder(index: str, metadata: dict[str, str], encoder: str) -> None:
    """Raises EncoderMismatchError if an index was made by another encoder."""
    if metadata["encoder"] != encoder:
        raise EncoderMismatchError(
            f"'{index}' was made by '{metadata['encoder']}', not by '{encoder}'. Shards of two encoders cannot be "
            "mixed: give another output folder."
        )
