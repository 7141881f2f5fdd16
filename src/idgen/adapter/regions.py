"""Masks of several people in one image, at the resolution of every layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from ..errors import AdapterError


class Regions:
    """Where each person may appear, at the resolution of every layer.

    Args:
        masks: One tensor per person with values in [0, 1]: (height, width), the same in all images, or
            (images, height, width).
    """

    def __init__(self, masks: list[torch.Tensor]) -> None:
        self.masks = [mask.reshape(-1, 1, *mask.shape[-2:]) for mask in masks]
        self._latent: tuple[int, int] | None = None
        self._by_length: dict[int, list[torch.Tensor]] = {}

    def fit(self, height: int, width: int) -> None:
        """Resize the masks to all levels of a UNet whose sample has this height and width."""
        if (height, width) == self._latent:
            return
        self._latent = (height, width)
        self._by_length = {}
        while True:
            masks = [F.interpolate(mask, (height, width), mode="area") for mask in self.masks]
            self._by_length[height * width] = [mask.flatten(1)[..., None] for mask in masks]
            if height * width == 1:
                return
            height, width = -(-height // 2), -(-width // 2)  # a stride of two rounds up

    def at(self, length: int, batch: int) -> list[torch.Tensor]:
        """Masks for a layer with this many queries and batch size, (1 or batch, length, 1) for each person.

        Raises:
            AdapterError: No level of the UNet has this many positions.
        """
        if length not in self._by_length:
            raise AdapterError(
                f"A layer has {length} positions, but the UNet's levels have {sorted(self._by_length)}. id_masks "
                "cannot be used with token merging or other changes of the UNet's resolution."
            )
        return [mask if len(mask) == 1 else mask.repeat(batch // len(mask), 1, 1) for mask in self._by_length[length]]


def make_regions(masks: Sequence[torch.Tensor] | None, people: int, images: int, like: torch.Tensor) -> Regions | None:
    """The masks of people, on the device and in the type of `like`; `None` without masks.

    Raises:
        AdapterError: The number of masks is not the number of people, or a mask is for another number of images.
    """
    if masks is None:
        return None
    if len(masks) != people:
        raise AdapterError(f"id_masks must have one mask per person: got {len(masks)} for {people} people.")
    if wrong := [tuple(mask.shape) for mask in masks if mask.ndim != 2 and (mask.ndim != 3 or len(mask) != images)]:
        raise AdapterError(f"A mask must be (height, width) or ({images}, height, width), got {wrong[0]}.")
    return Regions([mask.to(like) for mask in masks])
