"""What simple measurements say of a crop: pose, brightness, background. Each is a small number, 0 for unremarkable."""

from __future__ import annotations

import cv2
import numpy as np

POSES = ("looking to the front", "looking to the left", "looking to the right")
"""Left and right are those of the picture."""
LIGHTS = ("", "dark", "bright")
BACKGROUNDS = ("", "dark background", "light background", "blue background", "green background", "red background")

TURNED = 0.18
"""The tip of the nose is so far from the middle between the eyes, in eye distances, when a head is clearly turned."""


def describe(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """(pose, light, background) of an aligned RGB crop (side, side, 3) and its landmarks (5, 2) in the photo."""
    return np.array([_pose(landmarks), _light(image), _background(image)], np.int8)


def mirror(attributes: np.ndarray) -> np.ndarray:
    """Attributes (n, 3) of the pictures flipped left to right."""
    flipped = attributes.copy()
    flipped[:, 0] = np.array([0, 2, 1], np.int8)[attributes[:, 0]]
    return flipped


def _pose(landmarks: np.ndarray) -> int:
    axis = landmarks[1] - landmarks[0]
    offset = (landmarks[2] - landmarks[:2].mean(0)) @ axis / (axis @ axis)
    return 1 if offset < -TURNED else 2 if offset > TURNED else 0


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
