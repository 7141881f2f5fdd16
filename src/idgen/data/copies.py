"""Recognise aligned crops of the same photo, also after resizing, recompression or slight cropping.

Two photos of one sitting are similar almost everywhere, but differ at the mouth or the eyes. The crops are therefore
registered, and the region where they differ most decides.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

_SIDE = 56  # side of the compared pictures: detail finer than two pixels of a crop does not survive resizing
_WINDOW = 20
_STEPS = 8
_FLOOR = 0.02  # added to variances, which are 1 for the whole picture: noise in smooth skin is ignored
_LEAST = 0.3  # share of the crop that must be in both photos


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    """The lowest local correlation of two crops after registration.

    It is the contrast and structure term of SSIM (Wang et al. 2004, doi 10.1109/TIP.2003.819861) in windows of a
    third of the crop's side. Black pixels of a crop, which are outside of its photo, are left out.

    Args:
        first: (112, 112, 3), uint8, an aligned crop.
        second: Another crop.

    Returns:
        A number in [-1, 1]; 1 for equal crops, -1 if they have too little in common.
    """
    (a, inside), (b, covered) = _reduced(first), _reduced(second)
    both = inside & covered
    if both.mean() < _LEAST:
        return -1.0
    b, inside = _registered(_standard(a, both), _standard(b, both), inside, covered)
    if inside.mean() < _LEAST:
        return -1.0
    return _lowest_correlation(_standard(a, inside), _standard(b, inside), inside)


def _reduced(crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A smaller grey picture, (_SIDE, _SIDE), and which of its pixels show the photo."""
    factor = len(crop) // _SIDE
    grey = crop.astype(np.float64) @ (0.299, 0.587, 0.114)
    small = grey.reshape(_SIDE, factor, _SIDE, factor).mean((1, 3))
    outside = (crop == 0).all(-1).reshape(_SIDE, factor, _SIDE, factor).any((1, 3))
    return ndimage.gaussian_filter(small, 1), np.logical_not(ndimage.binary_dilation(outside))


def _standard(picture: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The picture with mean 0 and variance 1 inside of the mask."""
    return (picture - picture[inside].mean()) / max(float(picture[inside].std()), 1e-6)


def _registered(
    fixed: np.ndarray, moving: np.ndarray, inside: np.ndarray, covered: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The second picture registered to the first, and the mask of the pixels that both photos show.

    Landmarks of a copy are up to two pixels off. Gauss-Newton steps find the affine map, the gain and the offset of
    least squares (Lucas and Kanade 1981).
    """
    y, x = np.mgrid[:_SIDE, :_SIDE].astype(np.float64) - (_SIDE - 1) / 2
    points = np.stack([x, y, np.ones_like(x)])
    motion = np.eye(3)
    for _ in range(_STEPS):
        moved, both = _moved(moving, inside, covered, motion, points)
        down, right = np.gradient(moved)
        slopes = [right * x, right * y, right, down * x, down * y, down, moved, np.ones_like(moved)]
        step, *_ = np.linalg.lstsq(np.stack(slopes, -1)[both], (fixed - moved)[both], rcond=None)
        motion = motion @ (np.eye(3) + np.vstack([step[:6].reshape(2, 3), np.zeros(3)]))
    return _moved(moving, inside, covered, motion, points)


def _moved(
    picture: np.ndarray, inside: np.ndarray, covered: np.ndarray, motion: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.tensordot(motion[:2], points, 1) + (_SIDE - 1) / 2
    moved = ndimage.map_coordinates(picture, [y, x], order=1, mode="nearest")
    shown = ndimage.map_coordinates(covered.astype(np.float64), [y, x], order=1, cval=0)
    return moved, inside & (shown > 0.99)


def _lowest_correlation(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> float:
    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(np.where(inside, values, 0), _WINDOW, mode="constant") / share

    share = np.maximum(ndimage.uniform_filter(inside.astype(np.float64), _WINDOW, mode="constant"), 1e-6)
    mean_a, mean_b = mean(a), mean(b)
    covariance = mean(a * b) - mean_a * mean_b
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    local = (2 * covariance + _FLOOR) / (variances + _FLOOR)
    return float(local[share > 0.6].min(initial=1.0))
