"""Restores a damaged face of a photo: `pipe.restore(photo, id_embeds=…, restorer=…)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..adapter import Restorer, Scale
from ..errors import AdapterError
from ..faces import Choice, Photo, load_photo, match_colours, measure_degradation, paste_face
from .arguments import IdentityArguments
from .face_crop import EditedPicture, FaceCrop, chosen_faces, crop_framing, pipeline_usage
from .image_to_image import image_to_image
from .swap import refuse_blocked_faces

PROMPT = "a photo of a face"
"""It names nobody, so that the same prompt serves with and without a person."""

MAX_ENLARGED = 16_000_000
"""Pixels of the enlarged photo."""


def restore(
    pipeline: Any,
    photo: Photo,
    ours: IdentityArguments,
    restorer: Restorer,
    face: Choice | None,
    landmarks: np.ndarray | None,
    options: Mapping[str, Any],
) -> EditedPicture:
    """Restore a face of a photo; see `EditingMixin.restore`."""
    people, damaged = ours.people, load_photo(photo)
    adapters = list(people) if isinstance(people, Mapping) else list(pipeline._loaded_or_raise())
    loaded = pipeline._loaded_adapters[pipeline._checked(adapters[0])]
    [found] = chosen_faces(loaded, damaged, face, landmarks)
    refuse_blocked_faces(pipeline, damaged, [found])
    framing = crop_framing(pipeline)
    crop = FaceCrop.of(damaged, found.landmarks, framing)
    degradation = measure_degradation(crop.pixels, crop.zoom)
    identity: dict[str, Any] = {}
    scale: Any = restorer.curve.schedule(degradation) if ours.id_scale is None else ours.id_scale
    if people is not None and not is_zero(scale):
        name = "id_image" if ours.id_embeds is None else "id_embeds"
        identity = {name: people, "id_scale": scale}
    drawer = image_to_image(pipeline, restorer)
    usage, image = pipeline_usage(pipeline), Image.fromarray(crop.pixels)
    arguments: dict[str, Any] = {
        "prompt": PROMPT,
        "strength": 1.0,
        "num_inference_steps": usage.num_inference_steps,
        "guidance_scale": usage.guidance_scale,
        **options,
    }
    drawn = drawer(image=image, control_image=image, **identity, **arguments).images[0].convert("RGB")
    restored = match_colours(np.asarray(drawn.resize(image.size)), crop.pixels, crop.window)
    large, times = enlarged(damaged, crop.zoom)
    points = (crop.landmarks + 0.5) * times - 0.5
    pasted = paste_face(large, restored, crop.window, points, crop.template)
    return EditedPicture.of(pasted.photo, pasted.mask, [points])


def is_zero(scale: Scale | Mapping[str, Scale]) -> bool:
    """Whether a scale is the number 0: then nobody is drawn, as without a person."""
    return isinstance(scale, int | float) and not isinstance(scale, bool) and scale == 0


def enlarged(photo: np.ndarray, zoom: float) -> tuple[np.ndarray, float]:
    """A photo enlarged so that its face has the size that the model draws, and how many times; never reduced.

    Raises:
        AdapterError: It would be too large.
    """
    times = max(1.0, zoom)
    height, width = (round(side * times) for side in photo.shape[:2])
    if height * width > max(MAX_ENLARGED, photo.shape[0] * photo.shape[1]):
        raise AdapterError(
            f"The face is too small: the photo would be enlarged to {width} × {height} pixels. Cut the face out first."
        )
    if times == 1:
        return photo, 1.0
    return np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC)), times
