"""Opens the image encoder whose features an adapter reads beside the face embedding."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

from transformers import CLIPVisionModelWithProjection

from ..adapter import IdentityAdapter
from ..errors import AdapterError
from ..faces import ClipFeatures, EvaFeatures, ImageEncoder, WholePhotoFeatures

ImageEncoderSource: TypeAlias = "ImageEncoder | CLIPVisionModelWithProjection | str | os.PathLike[str]"
"""An image encoder, a CLIP model, or the folder, file or hub id of the adapter's image encoder."""

CLIP_H = "clip-1280x32"
"""CLIP ViT-H/14, which FaceID-Plus adapters read."""

EVA = "eva-clip-1024x24"
"""EVA02-CLIP-L/14 at 336 px, which PuLID adapters read."""

IMAGE_ENCODERS: dict[str, Callable[[], ImageEncoder]] = {
    CLIP_H: lambda: ClipFeatures("h94/IP-Adapter", "models/image_encoder"),
    EVA: EvaFeatures,
}
"""Image encoders by name. To add one, add its row."""


def open_image_encoder(adapter: IdentityAdapter) -> ImageEncoder:
    """Open the image encoder of an adapter that reads image features, which may be a part of the adapter.

    Raises:
        AdapterError: It is not known; the user must pass it.
        CheckpointError: It cannot be loaded.
    """
    name, projection = adapter.config["image_encoder"], adapter.to_tokens
    if projection.has_image_encoder:
        sizes = adapter.config["projection"]
        return WholePhotoFeatures(
            projection.encode_images, name or sizes["type"], sizes["feature_dim"], sizes["image_size"]
        )
    if name is None and adapter.feature_dim == 1280:  # saved by an earlier version, which had no names
        name = CLIP_H
    if name not in IMAGE_ENCODERS:
        raise AdapterError(
            f"This adapter reads image features of {name or 'an unknown encoder'}: pass load_id_adapter(…, "
            "image_encoder=<folder or hub id>)."
        )
    return IMAGE_ENCODERS[name]()


def as_image_encoder(adapter: IdentityAdapter, source: ImageEncoderSource) -> ImageEncoder:
    """The image encoder that a user has given for an adapter; a path is opened as the adapter's kind of encoder.

    Raises:
        CheckpointError: It cannot be loaded.
    """
    if isinstance(source, str | os.PathLike) and adapter.config["image_encoder"] == EVA:
        return EvaFeatures(source)
    if isinstance(source, CLIPVisionModelWithProjection | str | os.PathLike):
        return ClipFeatures(source)
    return source
