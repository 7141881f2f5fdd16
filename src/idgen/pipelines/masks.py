"""`id_masks` → where each person may appear in the generated image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import AdapterError
from ..faces import load_photo
from .arguments import IdMasks
from .supported import Pipeline


def read_masks(masks: IdMasks) -> list[torch.Tensor]:
    """Images, arrays or tensors, white where the person may appear → (height, width) in [0, 1].

    Floats are in [0, 1] and integers in [0, 255]; integers that are all 0 or 1, and bools, mean off or on.

    Raises:
        AdapterError: A mask is empty, or has values out of range or another shape.
        ImageError: A mask cannot be opened as an image.
    """
    return [
        _mask(mask, f"id_masks[{i}]") for i, mask in enumerate(masks if isinstance(masks, list | tuple) else [masks])
    ]


def crop_masks(masks: list[torch.Tensor], pipeline: Pipeline, arguments: Mapping[str, Any]) -> list[torch.Tensor]:
    """Masks of the whole image → of the part that inpainting with `padding_mask_crop` generates."""
    padding, painted = arguments.get("padding_mask_crop"), arguments.get("mask_image")
    if padding is None or not isinstance(painted, Image.Image):
        return masks
    processor = pipeline.image_processor
    height, width = processor.get_default_height_width(
        arguments["image"], arguments.get("height"), arguments.get("width")
    )
    box = pipeline.mask_processor.get_crop_region(painted, width, height, pad=padding)
    cropped = []
    for i, mask in enumerate(masks):
        whole = Image.fromarray((mask.numpy() * 255).astype(np.uint8)).resize(painted.size)
        part = processor.resize(whole.crop(box), height, width, resize_mode="fill").convert("L")
        cropped.append(torch.from_numpy(np.asarray(part, np.float32) / 255))
        if not cropped[-1].any():
            raise AdapterError(f"id_masks[{i}] lies outside of the part that padding_mask_crop generates.")
    return cropped


def _mask(mask: Any, name: str) -> torch.Tensor:
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu().float().numpy() if mask.is_floating_point() else mask.detach().cpu().numpy()
    if not isinstance(mask, np.ndarray):
        mask = load_photo(mask)[..., 0]
    mask = _one_channel(mask, name)
    if mask.dtype != bool and not np.issubdtype(mask.dtype, np.floating):
        if mask.min() < 0 or mask.max() > 255:
            raise AdapterError(f"{name}: integers must be in [0, 255], got {mask.min()} to {mask.max()}.")
        mask = mask.astype(np.float32) / (255 if mask.max() > 1 else 1)
    found = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))
    if not found.isfinite().all() or found.min() < 0 or found.max() > 1:
        raise AdapterError(f"{name}: floats must be in [0, 1], got {found.min():g} to {found.max():g}.")
    if not found.any():
        raise AdapterError(f"{name} is empty; it must be white where the person may appear.")
    return found


def _one_channel(mask: np.ndarray, name: str) -> np.ndarray:
    """(height, width), (1, height, width), (height, width, 1 or 3) … → (height, width)."""
    squeezed = mask[0] if mask.ndim == 4 and len(mask) == 1 else mask
    if squeezed.ndim == 3:
        squeezed = (
            squeezed[0] if squeezed.shape[0] in (1, 3) and squeezed.shape[-1] not in (1, 3) else squeezed[..., 0]
        )
    if squeezed.ndim != 2 or 0 in squeezed.shape:
        raise AdapterError(f"{name}: a mask must have the shape (height, width), got {mask.shape}.")
    return squeezed
