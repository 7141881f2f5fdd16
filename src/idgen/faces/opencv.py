"""YuNet (detector) and SFace (encoder) with OpenCV: small, fast, freely licensed networks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from ..errors import CheckpointError, MissingDependencyError
from .encoder import AlignedEncoder, NetworkInput
from .face import Detection, overlap
from .onnx_encoder import differentiable
from .search import search

Net = TypeVar("Net")


class YuNetDetector:
    """YuNet (libfacedetection, MIT; `opencv/face_detection_yunet` on the hub), with five landmarks.

    Args:
        weights: Path of `face_detection_yunet_*.onnx`, or the hub id of a repository with one.
        score_threshold: Minimum score of a face.
        working_side: Photos are resized so that their longer side has this many pixels, but enlarged at most three
            times. The network finds faces of 10 to 300 of these pixels.
    """

    doubt = None

    def __init__(self, weights: str | os.PathLike[str], score_threshold: float = 0.6, working_side: int = 640) -> None:
        self.working_side = working_side
        cv2 = _import_cv2()
        path = str(_resolve(weights, "face_detection_yunet"))
        self._net = _open(lambda: cv2.FaceDetectorYN.create(path, "", (320, 320), score_threshold, 1.0, 5000), path)

    def detect(self, image: np.ndarray) -> list[Detection]:
        return search(image, self.run, self.working_side)

    def run(self, pixels: np.ndarray) -> list[Detection]:
        """Upright faces, found without resizing the picture."""
        self._net.setInputSize((pixels.shape[1], pixels.shape[0]))
        rows = self._net.detect(np.ascontiguousarray(pixels[..., ::-1]))[1]
        return _fused(rows.astype(np.float64)) if rows is not None else []


class SFaceEncoder(AlignedEncoder):
    """SFace (`opencv/face_recognition_sface` on the hub, Apache-2.0): embeddings of length 128 from 112-px crops.

    Args:
        weights: Path of `face_recognition_sface_*.onnx`, or the hub id of a repository with one.
    """

    name = "sface"
    dim = 128
    source = "opencv/face_recognition_sface"
    read = NetworkInput(mean=(0.0, 0.0, 0.0), deviation=(1 / 255, 1 / 255, 1 / 255))
    template, size = read.template, read.size

    def __init__(self, weights: str | os.PathLike[str] = source) -> None:
        cv2 = _import_cv2()
        self._path = str(_resolve(weights, "face_recognition_sface"))
        self._net = _open(lambda: cv2.FaceRecognizerSF.create(self._path, ""), self._path)

    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        """See `AlignedEncoder`; raises as `OnnxModule`."""
        return differentiable(self._path, self.read, checkpointing)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `FaceEncoder`."""
        rows = [np.asarray(self._net.feature(np.ascontiguousarray(crop[..., ::-1]))).ravel() for crop in crops]
        return np.stack(rows).astype(np.float32) if rows else np.empty((0, self.dim), np.float32)


def _fused(rows: np.ndarray) -> list[Detection]:
    """Means of detections that overlap by half, weighted by the fourth power of their scores.

    This is more stable than non-maximum suppression, whose result moves by pixels when the photo moves by less than
    one.

    Args:
        rows: (detections, 15): x, y, width, height, five points, score.
    """
    rows = rows[np.argsort(-rows[:, 14])]
    rows[:, 2:4] += rows[:, :2]
    found = []
    while len(rows):
        shared = np.array([overlap(rows[0, :4], row[:4]) for row in rows])
        face = np.average(rows[shared > 0.5], axis=0, weights=rows[shared > 0.5, 14] ** 4)
        found.append(Detection(face[:4], face[4:14].reshape(5, 2), float(rows[0, 14])))
        rows = rows[shared < 0.3]
    return found


def _import_cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "YuNet and SFace require OpenCV: pip install 'idgen-diffusers[opencv]'"
        ) from error
    return cv2


def _resolve(weights: str | os.PathLike[str], stem: str) -> Path:
    """A local file, or the newest float32 file of a hub repository whose name begins with `stem`.

    A repository that has been downloaded is not looked up on the hub again.
    """
    path = Path(weights)
    if path.is_file():
        return path
    if path.suffix == ".onnx" or path.exists():
        raise CheckpointError(f"There is no file '{path}'.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted: dict[str, Any] = {"allow_patterns": f"{stem}*.onnx", "ignore_patterns": "*int8*"}
    try:
        try:
            folder = snapshot_download(str(weights), local_files_only=True, **wanted)
            return _newest(Path(folder), stem)
        except (LocalEntryNotFoundError, IndexError):
            return _newest(Path(snapshot_download(str(weights), **wanted)), stem)
    except Exception as error:  # the hub raises errors of many types
        raise CheckpointError(f"'{weights}' is neither a file nor a hub repository with {stem}*.onnx.") from error


def _newest(folder: Path, stem: str) -> Path:
    return sorted(file for file in folder.glob(f"{stem}*.onnx") if "int8" not in file.name)[-1]


def _open(create: Callable[[], Net], path: str) -> Net:
    try:
        return create()
    except Exception as error:  # cv2.error cannot be imported before OpenCV
        raise CheckpointError(f"OpenCV could not open '{path}': {error}") from error
