"""How much two sets of faces resemble each other, by the default encoder and by one that no training has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg
from tqdm import tqdm

from idgen.faces import ARCFACE_TEMPLATE, DLIB_TEMPLATE, DlibEncoder, align_face

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


class UnseenEncoder:
    """MobileFaceNet, for measuring only: 112-px ArcFace crops → unit embeddings (n, 128)."""

    def __init__(self, weights: Path) -> None:
        import onnxruntime

        self._net: Any = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
        self._input = self._net.get_inputs()[0].name

    def embed(self, crops: np.ndarray) -> np.ndarray:
        pixels = ((crops / 255 - MEAN) / DEVIATION).astype(np.float32).transpose(0, 3, 1, 2)
        found = np.stack([self._net.run(None, {self._input: image[None]})[0][0] for image in pixels])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def embed_tiny(self, images: np.ndarray, template: np.ndarray) -> np.ndarray:
        """The same of pictures (n, side, side, 3) in which the landmarks lie at `template`."""
        return self.embed(np.stack([align_face(image, template, ARCFACE_TEMPLATE, 112) for image in images]))


def default_features(images: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Embeddings (n, 128), not normalised, of pictures in which the landmarks lie at `template`."""
    encoder = DlibEncoder()
    found = []
    for part in tqdm(np.array_split(images, len(images) // 64 + 1), desc="embeddings", mininterval=10):
        found.append(encoder.embed(np.stack([align_face(i, template, DLIB_TEMPLATE, 150) for i in part])))
    return np.concatenate(found)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of two sets of features (n, d), each taken for a Gaussian (Heusel et al. 2017)."""
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T))
    spread = np.trace(np.cov(a.T) + np.cov(b.T) - 2 * np.real(root))
    return float(np.square(a.mean(0) - b.mean(0)).sum() + spread)


def nearest(queries: np.ndarray, bank: np.ndarray, forbidden: np.ndarray | None = None) -> np.ndarray:
    """Distance of each query (n, d) to its nearest row of the bank (m, d); `forbidden` (n, m) rows do not count."""
    distances = np.linalg.norm(queries[:, None] - bank[None], axis=2)
    if forbidden is not None:
        distances[forbidden] = np.inf
    return distances.min(1)
