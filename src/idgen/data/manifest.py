"""The manifest: what a set of shards is, how it was made, and that all of it belongs together."""

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
    """One set.

    Attributes:
        format: Of the shards.
        encoder: Name of the face encoder that made all embeddings.
        dim: Length of an embedding.
        detector: Class of the detector that found the faces.
        shards: Name → SHA-256 of the tar.
        counts: Inputs, photos, faces, people, pairs and the like.
        dropped: Reason → how many inputs or faces are in no sample because of it.
        aside: Reason → how many faces are set aside, though they are in the shards.
        splits: Split → people, faces and pairs in it.
        settings: What the set was made with.
        thresholds: Cosines that were used; see `Assigned`.
        similarity: "same" and "different": counts of cosines of pairs, in bins between "edges".
        versions: Of the packages that made it.
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
    thresholds: dict[str, float | None] = field(default_factory=dict)
    similarity: dict[str, list[float]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def save(self, output: str) -> None:
        """Write it into the set's folder."""
        with write_file(join(output, NAME)) as path:
            path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, shards: str) -> Manifest:
        """Read the manifest of a set, and check that all shards are there, whole, and of one encoder.

        Checksums of a set on a disk are compared once in each process. Object stores check their own; there sizes are
        compared.

        Raises:
            DataError: It is not there or not readable, or a shard is missing, unfinished, damaged or of another set.
            EncoderMismatchError: Shards of another encoder were put among them.
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
                    f"The shard '{name}' in '{shards}' is damaged: its checksum is not the one of the manifest. Run "
                    "`idgen prepare` again."
                )
        return manifest


def is_whole(tar: str, metadata: Mapping[str, str]) -> bool:
    """Whether a tar is the one that its index describes: by its size, and on a disk by its checksum."""
    if not exists(tar) or size(tar) != int(metadata["tar_bytes"]):
        return False
    found = checksum(tar)
    return found is None or found == metadata["tar_sha256"]


def check_shard(shards: str, name: str, encoder: str) -> dict[str, str]:
    """The metadata of one finished shard of this encoder; raises as `Manifest.open`."""
    tar, index = (join(shards, f"{name}.{suffix}") for suffix in ("tar", "parquet"))
    if not exists(tar) or not exists(index):
        raise DataError(f"The shard '{name}' is missing in '{shards}', or unfinished. Run `idgen prepare` again.")
    metadata = index_metadata(index)
    check_encoder(index, metadata, encoder)
    if size(tar) != int(metadata["tar_bytes"]):
        raise DataError(f"'{tar}' is cut or not the one of its index. Run `idgen prepare` again.")
    return metadata


def check_encoder(index: str, metadata: dict[str, str], encoder: str) -> None:
    """Raises EncoderMismatchError if an index was made by another encoder."""
    if metadata["encoder"] != encoder:
        raise EncoderMismatchError(
            f"'{index}' was made by '{metadata['encoder']}', not by '{encoder}'. Shards of two encoders cannot be "
            "mixed: give another output folder."
        )
