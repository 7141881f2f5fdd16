"""The training photos in a few small files, for a machine that has no photos and is available for minutes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from safetensors.torch import load_file, save_file

from idgen.data.framing import AlignedFraming
from idgen.faces import DlibEncoder

from . import config
from .crops import Part, open_crops
from .faces import load_faces, save
from .labels import open_labels

QUALITY = 80
"""WebP quality: 2 KB for a crop of 128 px, 37 dB."""
PIECE = 26 << 20
"""Largest number of bytes of pictures in a piece."""


def pack(settings: config.Config, folders: Mapping[str, Path], output: Path) -> None:
    """Write the training crops as `piece-0.npz` and so on, with people, labels, landmarks and embeddings, and the
    default face encoder as `encoder.safetensors`."""
    crops, faces = open_crops(folders["crops"], "train"), load_faces(settings, folders["faces"])
    framing = AlignedFraming(settings.crops.size, settings.crops.zoom, settings.crops.rise)
    columns = {
        "person": np.unique(crops["person"], return_inverse=True)[1].astype(np.int32),
        "attributes": open_labels(folders["labels"], "train"),
        "points": np.array([framing.points(points) for points in faces["landmarks"][crops["photo"]]], np.float16),
        "embeds": faces["embeds"][crops["photo"]].astype(np.float16),
    }
    output.mkdir(parents=True, exist_ok=True)
    weights = {name: weight.half().contiguous() for name, weight in DlibEncoder().state_dict().items()}
    save_file(weights, output / "encoder.safetensors")
    with ThreadPoolExecutor() as threads:
        pictures = list(threads.map(compress, crops["images"]))
    for number, rows in enumerate(_pieces([len(picture) for picture in pictures])):
        save(
            output / f"piece-{number}.npz",
            bytes=np.frombuffer(b"".join(pictures[rows]), np.uint8),
            lengths=np.array([len(picture) for picture in pictures[rows]]),
            **{name: column[rows] for name, column in columns.items()},
        )


class CarriedEncoder(DlibEncoder):
    """The default face encoder from the file that `pack` writes, on a machine without dlib's."""

    def _load_dat(self, path: Path) -> None:
        self.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})


def unpack(settings: config.Config, source: Path, folders: Mapping[str, Path]) -> None:
    """Write crops, styled pictures and labels of the training photos from the pieces in `source`, as the stages
    `crops` and `labels` do."""
    pieces = []
    for file in sorted(source.glob("piece-*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            pieces.append(dict(arrays))
    if not pieces:
        raise FileNotFoundError(f"There is no piece-0.npz in '{source}'; write it with train/tiny/gpu.py pack.")
    columns = {key: np.concatenate([p[key] for p in pieces]) for key in ("person", "attributes", "points", "embeds")}
    pictures = [picture for piece in pieces for picture in _parts(piece["bytes"].tobytes(), piece["lengths"])]
    part = Part(folders["crops"] / "train", settings, len(columns["person"]))
    cv2.setNumThreads(1)  # the pictures are divided among our own threads
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda row: part.write(row, _enlarged(pictures[row])), range(len(pictures))))
    part.finish(**columns)
    save(folders["labels"] / "train.npz", attributes=columns["attributes"])


def _pieces(lengths: list[int]) -> Iterator[slice]:
    """Rows of pieces of similar size, none larger than `PIECE`."""
    total = np.cumsum(lengths)
    count = -(-int(total[-1]) // PIECE)
    ends = [*np.searchsorted(total, total[-1] * np.arange(1, count) / count).tolist(), len(lengths)]
    yield from (slice(start, end) for start, end in zip([0, *ends], ends, strict=False))


def compress(image: np.ndarray) -> bytes:
    """An RGB picture as WebP."""
    done, data = cv2.imencode(".webp", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    assert done
    return data.tobytes()


def decompress(data: bytes, lengths: np.ndarray) -> list[np.ndarray]:
    """RGB pictures from the bytes of all of them."""
    return [_decoded(part) for part in _parts(data, lengths)]


def _decoded(data: bytes) -> np.ndarray:
    image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image[..., ::-1])


def _enlarged(data: bytes) -> np.ndarray:
    return cv2.resize(_decoded(data), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def _parts(data: bytes, lengths: np.ndarray) -> list[bytes]:
    ends = np.cumsum(lengths)
    return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]
