"""insightface packs (buffalo_l, antelopev2, AuraFace, your own) as detector and encoder.

The library is MIT; most packs are for non-commercial research. `fal/AuraFace-v1` is a pack with a free licence.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ..errors import CheckpointError, MissingDependencyError
from .align import ARCFACE_TEMPLATE
from .encoder import AlignedEncoder, NetworkInput
from .face import Detection
from .onnx_encoder import differentiable
from .search import WINDOW, Doubt, search

DOUBT = Doubt(sure=0.8)
"""A second pass runs the detector five times on a small image; most upright faces need none."""


class InsightFacePack:
    """The networks of a pack, shared by `InsightFaceDetector` and `InsightFaceEncoder`.

    Args:
        pack: Name of a pack of insightface, or a folder with the `.onnx` files, directly or in a subfolder (as in
            `antelopev2.zip`).
        root: Folder of insightface's downloaded packs.
        detection_size: Photos are resized to fit a square of this side in pixels for detection.

    Raises:
        CheckpointError: The pack cannot be found, or has no detector or recogniser.
        MissingDependencyError: insightface is not installed.
    """

    def __init__(
        self, pack: str | os.PathLike[str] = "buffalo_l", root: str = "~/.insightface", detection_size: int = 640
    ) -> None:
        try:
            from insightface.app import FaceAnalysis
        except ImportError as error:
            raise MissingDependencyError(
                "insightface is not installed: pip install 'idgen-diffusers[insightface]'"
            ) from error

        folder = _pack_folder(pack, root)
        self.name = folder.name if folder else str(pack)
        try:
            app = FaceAnalysis(
                name=str(folder or pack),
                root=root,
                allowed_modules=["detection", "recognition"],
                providers=_providers(),
            )
        except (AssertionError, OSError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"insightface could not open the pack '{pack}'. Pass the folder with its .onnx files. ({error})"
            ) from error
        if "recognition" not in app.models:
            raise CheckpointError(f"The pack '{pack}' has no recogniser.")
        app.prepare(ctx_id=0, det_size=(detection_size, detection_size))
        self.detector: Any = app.det_model
        self.recogniser: Any = app.models["recognition"]


class InsightFaceDetector:
    """The detector of a pack (SCRFD), with five landmarks."""

    def __init__(self, pack: InsightFacePack) -> None:
        self._net = pack.detector

    def detect(self, image: np.ndarray) -> list[Detection]:
        return search(image, self._run, None, look=lambda pixels: self._run(pixels, (WINDOW, WINDOW)), doubt=DOUBT)

    def _run(self, pixels: np.ndarray, size: tuple[int, int] | None = None) -> list[Detection]:
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        rows, landmarks = self._net.detect(bgr, input_size=size, max_num=0, metric="default")
        return [
            Detection(row[:4].astype(np.float64), points.astype(np.float64), float(row[4]))
            for row, points in zip(rows, landmarks, strict=True)
        ]


class InsightFaceEncoder(AlignedEncoder):
    """The recogniser of a pack (ArcFace), with insightface's own crops.

    Raises:
        CheckpointError: The recogniser takes crops of a size that insightface cannot cut.
    """

    def __init__(self, pack: InsightFacePack) -> None:
        self.pack, self._net = pack, pack.recogniser
        self.name = f"insightface/{pack.name}"
        self.dim, self.size = int(self._net.output_shape[1]), int(self._net.input_size[0])
        if self.size % 112 and self.size % 128:
            raise CheckpointError(
                f"The recogniser of '{pack.name}' takes crops of {self.size} px; insightface cuts multiples of 112 or "
                "128."
            )
        # as in `insightface.utils.face_align`: crops of 128 px have wider margins at the sides
        scale, margin = (self.size / 112, 0) if self.size % 112 == 0 else (self.size / 128, self.size / 16)
        self.template = ARCFACE_TEMPLATE * scale + (margin, 0)

    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        """See `AlignedEncoder`; raises as `OnnxModule`."""
        mean, deviation = ((value / 255,) * 3 for value in (self._net.input_mean, self._net.input_std))
        return differentiable(self._net.model_file, NetworkInput(mean=mean, deviation=deviation), checkpointing)

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """See `FaceEncoder`."""
        # not `align_face`: public adapters were trained on embeddings of cv2's crops, which are not smoothed first
        from insightface.utils.face_align import norm_crop

        return norm_crop(image, landmarks.astype(np.float32), self.size)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `FaceEncoder`."""
        if not len(crops):
            return np.empty((0, self.dim), np.float32)
        return np.concatenate([self._net.get_feat(np.ascontiguousarray(crop[..., ::-1])) for crop in crops])


def _pack_folder(pack: str | os.PathLike[str], root: str) -> Path | None:
    """The local folder with the pack's networks: the given one, a subfolder, or a downloaded pack; else `None`."""
    for folder in (Path(pack).expanduser(), Path(root).expanduser() / "models" / str(pack)):
        for candidate in (folder, folder / folder.name, *sorted(folder.glob("*/"))):
            if any(candidate.glob("*.onnx")):
                return candidate
    return None


def _providers() -> list[str]:
    import onnxruntime

    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return [name for name in wanted if name in onnxruntime.get_available_providers()]
