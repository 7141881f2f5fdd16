"""What the protection of a photo is worth: similarity by several encoders after usual edits, and how visible it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFilter

from ..errors import MissingDependencyError
from ..faces import EncoderStatistics, FaceDetector, FaceEncoder
from .protection import face_region, jpeg

Edit = Callable[[np.ndarray], np.ndarray]
FALSE_MATCH_RATE = 1e-3


def _resized(photo: np.ndarray, share: float) -> np.ndarray:
    height, width = (max(1, round(share * side)) for side in photo.shape[:2])
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.LANCZOS))


def _cropped(photo: np.ndarray, share: float) -> np.ndarray:
    height, width = (round(share * side) for side in photo.shape[:2])
    return photo[height : photo.shape[0] - height, width : photo.shape[1] - width]


def _blurred(photo: np.ndarray, radius: float) -> np.ndarray:
    return np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius)))


EDITS: Mapping[str, Edit] = {
    "as it is": lambda photo: photo,
    "JPEG 85": partial(jpeg, quality=85),
    "JPEG 75": partial(jpeg, quality=75),
    "half the size": partial(_resized, share=0.5),
    "cropped by 5 %": partial(_cropped, share=0.05),
    "blurred by 1 px": partial(_blurred, radius=1),
}
"""What may happen to a photo on its way, by name."""


DIFFUSION_PASS = "diffusion pass"
PASS_STEPS, PASS_STRENGTH = 50, 0.1


def diffusion_pass(pipeline: Any, landmarks: np.ndarray, resolution: int) -> Edit:
    """An edit that adds noise to the face and removes it again by a diffusion model, which can remove a protection.

    The square around the face is brought to the model's size and back (DiffPure, arXiv 2205.07460, by image to image
    with an empty prompt).

    Args:
        pipeline: Any pipeline of diffusers that has one for image to image.
        landmarks: (5, 2), of the face, pixels of the photo.
        resolution: Side of the model's pictures, pixels.
    """
    from diffusers import AutoPipelineForImage2Image

    image_to_image: Any = AutoPipelineForImage2Image.from_pipe(pipeline)
    image_to_image.set_progress_bar_config(disable=True)

    def passed(photo: np.ndarray) -> np.ndarray:
        top, bottom, left, right = face_region(landmarks, photo.shape[:2])
        square = Image.fromarray(photo[top:bottom, left:right])
        drawn = image_to_image(
            "",
            image=square.resize((resolution, resolution), Image.Resampling.LANCZOS),
            strength=PASS_STRENGTH,
            num_inference_steps=PASS_STEPS,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
        edited = photo.copy()
        edited[top:bottom, left:right] = np.asarray(drawn.resize(square.size, Image.Resampling.LANCZOS))
        return edited

    return passed


class Row(NamedTuple):
    """Similarity to the original photo.

    Attributes:
        encoder: Name of the encoder.
        edit: One of `EDITS`, or `DIFFUSION_PASS`.
        before: Cosine of the original photo after the edit.
        after: Cosine of the protected photo after the edit; NaN where no face is found any more.
        threshold: Cosine that 1 in 1,000 pairs of strangers exceed; NaN where the package has no statistics.
    """

    encoder: str
    edit: str
    before: float
    after: float
    threshold: float


class Visibility(NamedTuple):
    """How visible the change is.

    Attributes:
        psnr: Peak signal-to-noise ratio, dB; infinite for equal photos.
        ssim: Structural similarity, at most 1.
        largest: Largest change of a value, of 255.
    """

    psnr: float
    ssim: float
    largest: int


def measure_protection(
    photo: np.ndarray,
    protected: np.ndarray,
    detector: FaceDetector,
    encoders: Sequence[FaceEncoder],
    edits: Mapping[str, Edit] = EDITS,
) -> list[Row]:
    """Compare the faces of both photos with the original one, after each edit.

    Args:
        photo: (height, width, 3), uint8; its largest face is compared.
        protected: The same photo, protected.
        detector: Finds the faces, anew after each edit.
        encoders: Those it was protected against, and others.
        edits: Name and function of each.
    """
    rows = []
    for encoder in encoders:
        original = _embedded(photo, detector, encoder)
        for name, edit in edits.items():
            before, after = (_cosine(original, _embedded(edit(p), detector, encoder)) for p in (photo, protected))
            rows.append(Row(encoder.name, name, before, after, _threshold(encoder.name)))
    return rows


def measure_visibility(photo: np.ndarray, protected: np.ndarray) -> Visibility:
    """Compare two photos of one size, (height, width, 3) uint8.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """
    try:
        from skimage.metrics import structural_similarity
    except ImportError as error:
        raise MissingDependencyError("This needs scikit-image: pip install 'idgen-diffusers[provenance]'") from error
    difference = protected.astype(float) - photo
    power = np.square(difference).mean()
    return Visibility(
        psnr=float(10 * np.log10(255**2 / power)) if power else float("inf"),
        ssim=float(np.asarray(structural_similarity(photo, protected, channel_axis=2))),
        largest=int(np.abs(difference).max()),
    )


def _embedded(photo: np.ndarray, detector: FaceDetector, encoder: FaceEncoder) -> np.ndarray | None:
    face = max(detector.detect(photo), key=lambda found: found.area, default=None)
    return None if face is None else encoder.embed(encoder.crop(photo, face.landmarks)[None])[0]


def _cosine(a: np.ndarray | None, b: np.ndarray | None) -> float:
    if a is None or b is None:
        return float("nan")
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _threshold(encoder: str) -> float:
    statistics = EncoderStatistics.find(encoder)
    return float("nan") if statistics is None else statistics.threshold(FALSE_MATCH_RATE)
