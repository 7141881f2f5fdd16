"""Faces that the base model draws of itself, for the triplet loss (ID-Booth, arXiv 2504.07392)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..errors import DataError
from ..faces import FaceAnalyzer

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def embed_prior(folder: str) -> torch.Tensor:
    """Embed the largest face of each picture in a folder.

    Returns:
        (n, dim), by the encoder of the losses.

    Raises:
        DataError: There is no picture with a face.
    """
    files = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in SUFFIXES)
    analyzer = FaceAnalyzer()
    faces = [found[0] for path in files if (found := analyzer.analyze(path))]
    if not faces:
        raise DataError(
            f"None of the {len(files)} pictures in '{folder}' shows a face: let the base model draw people."
        )
    return torch.from_numpy(np.stack([face.embedding for face in faces]))
