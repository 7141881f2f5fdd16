"""Attributes of a photo and their words, and simple measurements of some of them."""

from __future__ import annotations

import cv2
import numpy as np

WORDS: dict[str, tuple[str, ...]] = {
    "pose": ("", "looking to the front", "looking to the left", "looking to the right"),
    "light": ("", "dark", "bright"),
    "background": (
        "",
        "dark background",
        "light background",
        "blue background",
        "green background",
        "red background",
    ),
    "quality": ("", "blurred", "sharp"),
    "smile": ("", "not smiling", "smiling"),
    "age": ("", "young", "old"),
    "sex": ("", "man", "woman"),
}
"""Attribute -> its words; 0 means unknown or unremarkable and is in no caption. The order is that of the columns of
`attributes` (n, 7) in the caches. Left and right are those of the picture."""

COLUMN = {name: column for column, name in enumerate(WORDS)}
TURNED, FRONT = 0.18, 0.08
"""Distance of the tip of the nose from the middle between the eyes, in eye distances, above which a head is turned and
below which it is not. A head-pose estimator agrees with both in 98 % of 700 photos (more than 10°, less than 15°)."""


def describe(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Attributes (7,) of an aligned RGB crop (side, side, 3) with its landmarks (5, 2) in the photo; those that
    are not measured on the crop are unknown."""
    found = np.zeros(len(WORDS), np.int8)
    found[COLUMN["pose"]] = _pose(landmarks)
    found[COLUMN["light"]] = _light(image)
    found[COLUMN["background"]] = _background(image)
    return found


def mirror(attributes: np.ndarray) -> np.ndarray:
    """Attributes (n, 7) of the pictures flipped left to right."""
    flipped = attributes.copy()
    flipped[:, COLUMN["pose"]] = np.array([0, 1, 3, 2], np.int8)[attributes[:, COLUMN["pose"]]]
    return flipped


def _pose(landmarks: np.ndarray) -> int:
    axis = landmarks[1] - landmarks[0]
    offset = (landmarks[2] - landmarks[:2].mean(0)) @ axis / (axis @ axis)
    return 2 if offset < -TURNED else 3 if offset > TURNED else 1 if abs(offset) < FRONT else 0


def _light(image: np.ndarray) -> int:
    """Mean luminance of the middle of the crop, which is mostly skin."""
    side = len(image)
    middle = image[side // 4 : -side // 4, side // 4 : -side // 4]
    mean = cv2.cvtColor(np.ascontiguousarray(middle), cv2.COLOR_RGB2GRAY).mean()
    return 1 if mean < 105 else 2 if mean > 160 else 0


def _background(image: np.ndarray) -> int:
    """Mean colour of the upper corners, where they agree with each other."""
    side = len(image) // 6
    corners = np.stack([image[:side, :side], image[:side, -side:]]).astype(np.float32).mean((1, 2))
    if np.abs(corners[0] - corners[1]).max() > 50:
        return 0
    red, green, blue = colour = corners.mean(0)
    if colour.max() < 55:
        return 1
    if colour.min() > 180 and np.ptp(colour) < 40:
        return 2
    if blue > red + 30 and blue > green + 10:
        return 3
    if green > red + 15 and green > blue + 15:
        return 4
    return 5 if red > green + 60 and red > blue + 50 else 0
