"""A detector for encoders of something else than faces: the picture itself is what is found."""

from __future__ import annotations

import numpy as np

from .align import ARCFACE_TEMPLATE
from .face import Detection


class WholePicture:
    """Finds one thing in every picture: its middle square, as `FaceDetector`.

    The landmarks are where those of a face would be in an ArcFace crop. With the template `ARCFACE_TEMPLATE * SIZE /
    112`, the crop of an encoder is therefore the middle square in SIZE × SIZE pixels.
    """

    def detect(self, image: np.ndarray) -> list[Detection]:
        """The middle square of an RGB uint8 array (height, width, 3)."""
        height, width = image.shape[:2]
        side = min(height, width)
        corner = np.array([(width - side) / 2, (height - side) / 2])
        # pixel centres lie half a pixel from the edges, in the crop as in the picture
        landmarks = corner + (ARCFACE_TEMPLATE + 0.5) * side / 112 - 0.5
        return [Detection(np.concatenate([corner, corner + side]), landmarks, 1.0)]
