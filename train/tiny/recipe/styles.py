"""Styles as image filters of OpenCV and scikit-image.

Each filter takes and returns RGB uint8 (side, side, 3). They run at twice the size of the training crops, so that
lines and patches are fine after the reduction. The widths of lines are given for a side of 128 px and scale with it;
brushes do not scale, since finer strokes keep more of the face.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Filter = Callable[[np.ndarray], np.ndarray]


def pencil_sketch(image: np.ndarray) -> np.ndarray:
    """Grey divided by its own blur (colour dodge): paper with dark lines."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    paper = grey / np.maximum(cv2.GaussianBlur(grey, (0, 0), 5 * len(grey) / 128), 1)
    return _grey(255 * np.clip(paper, 0, 1) ** 2.2)


def oil_painting(image: np.ndarray) -> np.ndarray:
    """Flat strokes: the median of a wide window, in few and saturated tones."""
    smooth = cv2.medianBlur(cv2.medianBlur(image, 7), 5)
    tones = (smooth.astype(np.float32) / 32).round() * 32
    return _saturate(cv2.medianBlur(_uint8(tones), 3), 1.6)


def sepia(image: np.ndarray) -> np.ndarray:
    """Brown tones of old prints."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None]
    return _uint8(grey * np.array([1.10, 0.88, 0.60], np.float32) + np.array([14, 6, 0], np.float32))


def black_and_white(image: np.ndarray) -> np.ndarray:
    """Grey with a little more contrast."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return _grey((grey - 128) * 1.15 + 128)


def cartoon(image: np.ndarray) -> np.ndarray:
    """Flat bright colours inside black outlines."""
    flat = image
    for _ in range(2):
        flat = cv2.bilateralFilter(flat, 7, 60, 7)
    flat = _saturate(_uint8((flat.astype(np.float32) / 36).round() * 36 + 18), 1.35)
    grey = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 5)
    lines = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, _window(11, image), 5)
    lines = cv2.medianBlur(lines, 3)
    return np.where(lines[..., None] > 0, flat, np.uint8(15)).astype(np.uint8)


def warm_light(image: np.ndarray) -> np.ndarray:
    """Light of a sunset: more red, much less blue."""
    return _uint8(image.astype(np.float32) * np.array([1.22, 0.92, 0.50], np.float32) + np.array([16, 4, 0]))


def cold_light(image: np.ndarray) -> np.ndarray:
    """Light of the moon: more blue, much less red."""
    return _uint8(image.astype(np.float32) * np.array([0.55, 0.92, 1.22], np.float32) + np.array([0, 6, 22]))


def pop_art(image: np.ndarray) -> np.ndarray:
    """Four printed colours, chosen by brightness within the face: purple, magenta, orange and light yellow."""
    grey = cv2.bilateralFilter(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 7, 50, 7).astype(np.float32)
    middle = grey[len(grey) // 4 : -len(grey) // 4, len(grey) // 4 : -len(grey) // 4]
    level = np.digitize(grey, np.percentile(middle, [12, 35, 70]))
    inks = np.array([[60, 20, 110], [215, 35, 130], [250, 140, 60], [255, 240, 150]], np.uint8)
    return inks[level]


STYLES: dict[str, Filter] = {
    "pencil sketch": pencil_sketch,
    "oil painting": oil_painting,
    "sepia": sepia,
    "black and white": black_and_white,
    "cartoon": cartoon,
    "warm light": warm_light,
    "cold light": cold_light,
    "pop art": pop_art,
}
"""Name → filter. The order is the style's number in the caches; 0 there is the plain photo."""


def _window(pixels: int, image: np.ndarray) -> int:
    """An odd window of `pixels` at a side of 128 px, for this picture."""
    return 2 * round((pixels - 1) / 2 * len(image) / 128) + 1


def _uint8(image: np.ndarray) -> np.ndarray:
    return image.round().clip(0, 255).astype(np.uint8)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(_uint8(values)[..., None], 3, axis=2)


def _saturate(image: np.ndarray, gain: float) -> np.ndarray:
    grey = image.astype(np.float32).mean(2, keepdims=True)
    return _uint8(grey + (image - grey) * gain)
