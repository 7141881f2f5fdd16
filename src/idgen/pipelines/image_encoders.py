"""Opens the image encoder whose features an adapter reads beside the face embedding."""

from __future__ import annotations

from collections.abc import Callable

from ..adapter import IdentityAdapter
from ..errors import AdapterError
from ..faces import ClipFeatures, ImageEncoder, WholePhotoFeatures

CLIP_H = "clip-1280x32"
"""CLIP ViT-H/14, which FaceID-Plus adapters read."""

IMAGE_ENCODERS: dict[str, Callable[[], ImageEncoder]] = {
    CLIP_H: lambda: ClipFeatures("h94/IP-Adapter", "models/image_encoder"),
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
