"""`prepare_shard`: some photos → one tar and its index; idempotent."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ..faces import Face, FaceAnalyzer
from .engines import one_thread
from .index import FORMAT, SCHEMA, readable_metadata, write_index
from .manifest import check_encoder, is_whole
from .metadata import clean
from .quality import pose, sharpness, thumbnail
from .read_photos import ReadPhoto, read_photos, scrubbed
from .scrub import Scrubber
from .source import Source
from .storage import join, sha256, size, write_file

REVISION = 4
"""Increased when shards of the same photos change, so that older ones are made again."""
_UNTOLD = ("embedding", "thumbnail", "offset", "length")


@dataclass(frozen=True)
class InputShard:
    """The input of one shard: its number and its photos, in order."""

    number: int
    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        return f"{self.number:06d}"

    def fingerprint(self, analyzer: FaceAnalyzer, min_face: float, scrubber: Scrubber | None = None) -> str:
        """A hash of everything that the shard depends on; photos are identified by path and stamp."""
        made_by = (FORMAT, REVISION, analyzer.encoder.name, type(analyzer.detector).__name__, min_face)
        text = repr((made_by, self.sources) if scrubber is None else (made_by, scrubber, self.sources))
        return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def prepare_shard(
    input: InputShard,
    output: str,
    analyzer: FaceAnalyzer,
    min_face: float = 24.0,
    scrubber: Scrubber | None = None,
) -> str:
    """Detect, embed and describe all faces in some photos.

    A photo with given landmarks has one face, which is not detected.

    Writes `NAME.tar` (`key.jpg` unchanged, `key.json`, and per face `key.0.png`, its 112-px aligned crop, and
    `key.0.npy`, its embedding) and then `NAME.parquet`, whose presence marks the shard as finished. A finished shard
    of the same input is kept.

    Args:
        input: The photos.
        output: Folder or URL of the set.
        analyzer: Detects and embeds faces.
        min_face: Smallest width of a face in pixels; smaller faces are dropped and counted.
        scrubber: Removes people's data from captions.

    Returns:
        The shard's name.

    Raises:
        DataError: The output cannot be written.
        EncoderMismatchError: The output has a shard of another encoder.
    """
    fingerprint = input.fingerprint(analyzer, min_face, scrubber)
    tar, index = (join(output, f"{input.name}.{suffix}") for suffix in ("tar", "parquet"))
    if found := readable_metadata(index):
        check_encoder(index, found, analyzer.encoder.name)
        if found["fingerprint"] == fingerprint and is_whole(tar, found):
            return input.name
    rows: list[dict[str, Any]] = []
    removed: Counter[str] = Counter()
    with (
        write_file(tar) as path,
        path.open("wb") as file,
        one_thread(),
        tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for batch in read_photos(input.sources, input.name):
            if scrubber is not None:
                batch = [scrubbed(photo, scrubber, removed) for photo in batch]
            rows += _write_batch(archive, batch, analyzer, min_face)
    about = {
        "fingerprint": fingerprint,
        "inputs": str(len(input.sources)),
        "tar_bytes": str(size(tar)),
        "tar_sha256": sha256(tar),
        "scrubbed": json.dumps(removed, sort_keys=True),
    }
    write_index(index, pa.Table.from_pylist(rows, SCHEMA.with_metadata(_networks(analyzer) | about)))
    return input.name


@dataclass
class ShardWorker:
    """`prepare_shard` for engines. The networks are opened at the first shard of each worker.

    Attributes:
        output: Folder or URL of the set.
        make_analyzer: Called in the worker, for example `functools.partial(FaceAnalyzer.for_encoder, name)`.
        min_face: See `prepare_shard`; so is `scrubber`.
    """

    output: str
    make_analyzer: Callable[[], FaceAnalyzer]
    min_face: float
    scrubber: Scrubber | None = None
    _analyzer: FaceAnalyzer | None = field(default=None, init=False)

    def __call__(self, shard: InputShard) -> str:
        self._analyzer = self._analyzer or self.make_analyzer()
        return prepare_shard(shard, self.output, self._analyzer, self.min_face, self.scrubber)


def _write_batch(
    archive: tarfile.TarFile, batch: list[ReadPhoto], analyzer: FaceAnalyzer, min_face: float
) -> list[dict[str, Any]]:
    opened = [photo for photo in batch if photo.pixels is not None]
    pixels = [photo.pixels for photo in opened if photo.pixels is not None]
    found = iter(analyzer.analyze_batch(pixels, [photo.landmarks for photo in opened]))
    rows: list[dict[str, Any]] = []
    for photo in batch:
        faces = next(found) if photo.pixels is not None else []
        about = _metadata(photo)
        if not faces:
            rows.append(about | {"dropped": photo.dropped or "no-face"})
            continue
        kept = [face.size >= min_face for face in faces]
        if any(kept):  # photos without a usable face are not stored
            about["offset"] = _add(archive, f"{photo.key}.{photo.suffix}", photo.data)
            about["length"] = len(photo.data)
        faced = [
            about | _describe(face, i) | {"dropped": None if kept[i] else "small-face"} for i, face in enumerate(faces)
        ]
        rows += faced
        if any(kept):
            told = [{name: value for name, value in row.items() if name not in _UNTOLD} for row in faced]
            _add(archive, f"{photo.key}.json", json.dumps(told, ensure_ascii=False).encode())
        for i, face in enumerate(faces):
            if kept[i]:
                png = _png(face.crop)
                faced[i] |= {"crop_offset": _add(archive, f"{photo.key}.{i}.png", png), "crop_length": len(png)}
                _add(archive, f"{photo.key}.{i}.npy", _npy(face.embedding))
    return rows


def _networks(analyzer: FaceAnalyzer) -> dict[str, str]:
    """Metadata of the index: its format, and what found and embedded the faces."""
    return {
        "format": FORMAT,
        "encoder": analyzer.encoder.name,
        "dim": str(analyzer.encoder.dim),
        "detector": type(analyzer.detector).__name__,
    }


def _metadata(photo: ReadPhoto) -> dict[str, Any]:
    height, width = (None, None) if photo.pixels is None else photo.pixels.shape[:2]
    return {
        "key": photo.key,
        "source": clean(photo.source.name),
        **photo.metadata,
        "sha256": hashlib.sha256(photo.data).hexdigest() if photo.data else None,
        "suffix": photo.suffix,
        "width": width,
        "height": height,
    }


def _describe(face: Face, number: int) -> dict[str, Any]:
    yaw, roll = pose(face.landmarks)
    return {
        "face": number,
        "box": face.box.tolist(),
        "landmarks": face.landmarks.ravel().tolist(),
        "score": face.score,
        "size": face.size,
        "sharpness": sharpness(face.crop),
        "yaw": yaw,
        "roll": roll,
        "norm": float(np.linalg.norm(face.embedding)),
        "embedding": face.embedding.tolist(),
        "thumbnail": thumbnail(face.crop).tolist(),
    }


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> int:
    """Add a member and return the position of its bytes. Time and owner are zero: same photos give the same bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
    return archive.offset - (len(data) + 511) // 512 * 512


def _png(crop: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _npy(embedding: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, embedding, allow_pickle=False)
    return buffer.getvalue()
