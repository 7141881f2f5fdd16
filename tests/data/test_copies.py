"""Copies of a photo are one picture; two photos of one sitting are two, however alike they are."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen.data.copies import likeness
from idgen.data.duplicates import ALIKE, SAME_PICTURE
from idgen.data.quality import thumbnail
from idgen.faces import FaceAnalyzer

SITTINGS = ("003", "018", "123", "137", "101")
"""The five of London's 51 people whose two photos are the most alike."""


def recompressed(image: Image.Image, form: str = "JPEG", quality: int = 85) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, form, quality=quality)
    return Image.open(buffer).convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    return recompressed(image.resize((round(image.width * factor), round(image.height * factor))))


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return recompressed(image.crop((width // 20, height // 30, width - width // 40, height - height // 25)))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "compressed": lambda image: recompressed(image, quality=50),
    "webp": lambda image: recompressed(image, "WEBP", 60),
    "half": lambda image: resized(image, 0.5),
    "larger": lambda image: resized(image, 1.5),
    "cropped": cropped,
    "grey": lambda image: recompressed(image.convert("L").convert("RGB")),
}


@pytest.fixture(scope="module")
def crop_of(analyzer: FaceAnalyzer) -> Callable[[Image.Image], np.ndarray]:
    return lambda image: max(analyzer.analyze(np.asarray(image)), key=lambda face: face.size).crop


@pytest.fixture(scope="module")
def sittings(shared: Path, crop_of) -> list[tuple[Image.Image, np.ndarray, np.ndarray]]:
    """A photo, its crop, and the crop of the other photo."""
    folder = shared / "data" / "london"
    if not folder.is_dir():
        pytest.skip(f"the photos of people are not at {folder}")
    return [
        (
            image := Image.open(folder / name / "neutral.jpg"),
            crop_of(image),
            crop_of(Image.open(folder / name / "smiling.jpg")),
        )
        for name in SITTINGS
    ]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(thumbnail(a), thumbnail(b))[0, 1])


def test_another_expression_is_another_picture(sittings):
    """Though their thumbnails are more alike than those of some copies."""
    assert max(correlation(a, b) for _, a, b in sittings) > 0.98
    assert max(max(likeness(a, b), likeness(b, a)) for _, a, b in sittings) < SAME_PICTURE


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_is_the_same_picture(kind, sittings, crop_of, astronaut):
    originals = [(image, crop) for image, crop, _ in sittings[:1]]
    originals.append((face := Image.fromarray(astronaut).crop((120, 0, 340, 240)), crop_of(face)))
    for image, crop in originals:
        copy = crop_of(COPIES[kind](image))
        assert correlation(crop, copy) >= ALIKE
        assert likeness(crop, copy) >= SAME_PICTURE


def test_unrelated_pictures_are_not_copies():
    black, noise = (
        np.zeros((112, 112, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8),
    )
    half = noise.copy()
    half[:, 40:] = 0
    assert likeness(noise, noise) == pytest.approx(1)
    assert likeness(black, noise) == likeness(noise, black) == likeness(black, black) == -1
    assert likeness(half, noise) > 0.9
    assert likeness(noise, noise[::-1]) < 0
