"""Features of EVA-CLIP, which PuLID adapters read in addition to the embedding."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from torch import nn

from ..errors import CheckpointError, MissingDependencyError
from ..files import read_tensors
from .align import FFHQ_TEMPLATE, align_face
from .clip import DEVIATION, MEAN
from .parsing import FaceParser

HUB = ("timm/eva02_large_patch14_clip_336.merged2b_s6b_b61k", "open_clip_model.safetensors")
"""Hub id and file of EVA02-CLIP-L/14 at 336 px (MIT), with its text encoder, which is not used."""

ARCHITECTURE, EMBEDDING_DIM = "eva02_large_patch14_clip_336", 768
"""The image encoder's name in timm, and the length of the image embedding."""

LAYERS = (4, 8, 12, 16, 20)
"""Blocks after which the hidden states are read."""

CROP = 512
"""Side of the aligned face in pixels."""

GREY = (132, 133, 135)
"""The colour outside of the photo."""


_log = logging.getLogger(__name__)


class EvaFeatures:
    """Image embedding and hidden states of EVA-CLIP (PuLID, arXiv 2404.16022); an `ImageEncoder`.

    The encoder sees the aligned face in grey on white. Without `parser` the ears, the neck and the background stay in
    grey, which differs from what PuLID was trained with.

    Args:
        model: An EVA-CLIP image encoder of timm with its head, or a `.safetensors` file of the published one, as timm
            or open_clip names its tensors; the published one from the hub if not given (856 MB).
        parser: Finds the parts of the crop that become white.

    Raises:
        MissingDependencyError: timm is not installed.
        CheckpointError: The file cannot be found or does not fit.
    """

    def __init__(self, model: nn.Module | str | os.PathLike[str] | None = None, parser: FaceParser | None = None):
        network: Any = model if isinstance(model, nn.Module) else _open(model)
        if parser is None:
            _log.warning(
                "The input of EVA-CLIP includes ears, neck and background, which PuLID's training masked: pass "
                "image_encoder=EvaFeatures(parser=SegmentationParser(…))."
            )
        self.model, self.parser = network.eval().requires_grad_(False), parser
        self.size, self.dim = int(network.patch_embed.img_size[0]), int(network.embed_dim)
        self.name = f"eva-clip-{self.dim}x{len(network.blocks)}"

    def crop(self, photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB and (5, 2) landmarks → the aligned face, (512, 512, 3) uint8."""
        return align_face(photo, landmarks, FFHQ_TEMPLATE, CROP, border=GREY)

    def encode(self, photo: np.ndarray, landmarks: np.ndarray) -> torch.Tensor:
        """See `ImageEncoder`; the features of the aligned face."""
        return self(self.crop(photo, landmarks))

    @torch.no_grad()
    def __call__(self, crop: np.ndarray) -> torch.Tensor:
        """Encode one aligned face.

        Args:
            crop: (512, 512, 3), uint8 RGB.

        Returns:
            (1 + 5 · n, dim), float32: the image embedding of unit length, padded with zeros, then n hidden states
            after each of `LAYERS`, the class token first, without the final norm.
        """
        weight = next(self.model.parameters())
        pixels = self.pixels(crop).to(weight)
        network: Any = self.model
        last, layers = network.forward_intermediates(
            pixels, indices=[i - 1 for i in LAYERS], norm=False, output_fmt="NLC", return_prefix_tokens=True
        )
        embedding = F.normalize(network.forward_head(last).float(), dim=-1)
        hidden = [torch.cat([first, patches], 1).float() for patches, first in layers]
        padded = F.pad(embedding, (0, self.dim - embedding.shape[-1]))[:, None]
        return torch.cat([padded, *hidden], 1)[0].cpu()

    def pixels(self, crop: np.ndarray) -> torch.Tensor:
        """Input of the encoder for an aligned face: grey on white, normalised, (1, 3, size, size)."""
        red, green, blue = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
        face = 0.299 * red + 0.587 * green + 0.114 * blue
        if self.parser is not None:
            face = face.masked_fill(torch.from_numpy(self.parser.outside(crop)), 1.0)
        face = face.expand(1, 3, -1, -1)
        face = F.interpolate(face, (self.size, self.size), mode="bicubic", align_corners=False)
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
        return (face - mean) / deviation

    def unconditional(self) -> None:
        """`None`: the features of no person are zeros."""
        return


def _open(path: str | os.PathLike[str] | None) -> nn.Module:
    try:
        import timm  # pyright: ignore[reportMissingImports]
        from timm.models.eva import checkpoint_filter_fn  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingDependencyError(
            "Photos for PuLID are encoded by EVA-CLIP, which requires timm: pip install 'idgen-diffusers[pulid]'. An "
            f"Identity that was enrolled elsewhere does not need it. ({error})"
        ) from error
    if path is None:
        try:
            path = hf_hub_download(*HUB)
        except (OSError, HfHubHTTPError) as error:
            raise CheckpointError(f"EVA-CLIP could not be downloaded from '{HUB[0]}': {error}") from error
    state, _ = read_tensors(Path(path))
    model = timm.create_model(ARCHITECTURE, num_classes=EMBEDDING_DIM)
    try:
        model.load_state_dict(checkpoint_filter_fn(state, model))
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"'{path}' is not the image encoder of EVA02-CLIP-L/14 at 336 px: {error}") from error
    return model
