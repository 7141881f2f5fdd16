"""The makers of cached columns: latents, text, CLIP features, other embeddings, and augmented photos."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageEnhance

from ..faces import FaceEncoder, open_encoder, spec_of
from ..vae import encode_images
from ..weights_key import network_key
from .columns import Entry
from .framing import Framing

if TYPE_CHECKING:
    from ..faces.clip import ClipFeatures

PIXELS, PIXELS_ON_CPU = 1 << 21, 1 << 18
"""Pixels that a VAE encodes at once: 8 pictures of 512 px fit into a GPU of 12 GB; one uses all cores of a CPU."""


@dataclass
class LatentMaker:
    """VAE latents of the framed picture and of its mirror image, (2, channels, height, width), float16, scaled for the
    UNet. They are the mean of the distribution, not a sample.

    Attributes:
        vae: Any autoencoder of diffusers.
        framing: How pictures are cut from photos.
        network: `network_key` of the VAE, if it is known from weights before rounding.
    """

    vae: Any
    framing: Framing
    name: str = "latents"
    network: str | None = None
    parallel: bool = False

    def key(self) -> str:
        self.network = self.network or network_key(self.vae)
        return f"{type(self.vae).__name__}-{self.network}/{self.framing.name}"

    @torch.no_grad()
    def __call__(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        pictures = [self.framing.cut(entry.photo, entry.row["box"], entry.landmarks) for entry in entries]
        found = [torch.zeros(0)] * len(entries)
        for part in _of_one_size(pictures, PIXELS_ON_CPU if self.vae.device.type == "cpu" else PIXELS):
            both = np.stack([view for i in part for view in (pictures[i], pictures[i][:, ::-1])])
            for i, latents in zip(part, encode_images(self.vae, both).half().split(2), strict=True):
                found[i] = latents
        return found


def _of_one_size(pictures: Sequence[np.ndarray], pixels: int) -> Iterator[list[int]]:
    """Indices of pictures of one size that are encoded at once, each with its mirror image."""
    parts: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        part = parts.setdefault(picture.shape, [])
        part.append(i)
        if 2 * (len(part) + 1) * picture.shape[0] * picture.shape[1] > pixels:
            yield parts.pop(picture.shape)
    yield from parts.values()


@dataclass
class FeatureMaker:
    """CLIP features of the aligned face for FaceID-Plus adapters, (tokens, dim), float16.

    Attributes:
        clip: CLIP image encoder.
    """

    clip: ClipFeatures
    name: str = "features"
    parallel: bool = False

    def key(self) -> str:
        return f"clip-{network_key(self.clip.model)}"

    def __call__(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        crops = np.stack([self.clip.crop(entry.photo, entry.landmarks) for entry in entries])
        return list(self.clip(crops).half())


@dataclass
class TextMaker:
    """Captions encoded by SD1.5's text encoder, (length, dim), float16; no value without a caption.

    `<id>` is replaced by "person": captions with trained pseudo-words cannot be encoded before training.

    Attributes:
        text_encoder: Text encoder of the base model.
        tokenizer: Tokenizer of the base model.
        network: `network_key` of the text encoder, as in `LatentMaker`.
    """

    text_encoder: Any
    tokenizer: Any
    name: str = "text"
    network: str | None = None
    parallel: bool = False

    def key(self) -> str:
        self.network = self.network or network_key(self.text_encoder)
        return f"text-{self.network}"

    @torch.no_grad()
    def __call__(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        captions = [(entry.row["caption"] or "").replace("<id>", "person") for entry in entries]
        tokens = self.tokenizer(
            captions,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        )
        found = self.text_encoder(tokens.input_ids.to(self.text_encoder.device)).last_hidden_state.half().cpu()
        return [value if caption else found[0, :0] for caption, value in zip(captions, found, strict=True)]


def embeds_column(encoder: str) -> str:
    """Name of the column with the embeddings of another encoder than the set's."""
    return f"embeds-{_in_file_names(encoder)}"


def augmented_column(encoder: str | None = None) -> str:
    """Name of the column with embeddings of augmented photos, by the set's encoder or another one."""
    return "augmented" if encoder is None else f"augmented-{_in_file_names(encoder)}"


def _in_file_names(encoder: str) -> str:
    return re.sub(r"[^\w-]", "-", encoder)


@dataclass
class EmbeddingMaker:
    """Embeddings by another encoder than the set's, for losses or for the adapter, (dim,), float32.

    Attributes:
        encoder: Stored name of the encoder, which is part of the column's name.
        spec: What opens it; `spec_of(encoder)` if it is not given.
    """

    encoder: str
    spec: str = ""
    parallel: bool = True
    _opened: FaceEncoder | None = field(default=None, init=False)

    @property
    def name(self) -> str:
        return embeds_column(self.encoder)

    def key(self) -> str:
        return self.encoder

    def __call__(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        encoder = self._opened = self._opened or open_encoder(self.spec or spec_of(self.encoder))
        crops = np.stack([encoder.crop(entry.photo, entry.landmarks) for entry in entries])
        return list(torch.from_numpy(encoder.embed(crops)))


@dataclass
class AugmentedMaker:
    """For people with one photo: the embedding of an augmented version of it, (dim,).

    The only photo of a person is its own reference; without augmentation the adapter would learn to copy it.

    Attributes:
        encoder: Stored name of the encoder.
        spec: What opens it; `spec_of(encoder)` if it is not given.
        name: Name of the column.
    """

    encoder: str
    spec: str = ""
    name: str = augmented_column()
    parallel: bool = True
    _opened: FaceEncoder | None = field(default=None, init=False)

    def key(self) -> str:
        return f"{self.encoder}/augmented-1"

    def __call__(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        lonely = [i for i, entry in enumerate(entries) if entry.alone]
        found = [torch.zeros(0)] * len(entries)
        if lonely:
            encoder = self._opened = self._opened or open_encoder(self.spec or spec_of(self.encoder))
            crops = np.stack([encoder.crop(*augment(entries[i])) for i in lonely])
            for i, embedding in zip(lonely, torch.from_numpy(encoder.embed(crops)), strict=True):
                found[i] = embedding
        return found


def augment(entry: Entry) -> tuple[np.ndarray, np.ndarray]:
    """A mirrored, slightly rotated photo with other light and sharpness, and its landmarks; seeded by its hash."""
    random = np.random.default_rng(int(entry.row["sha256"][:12], 16) + entry.row["face"])
    image = Image.fromarray(entry.photo)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(float(random.uniform(0.7, 1.3)))
    shrink = float(random.uniform(0.5, 1))
    small = image.resize((max(round(image.width * shrink), 1), max(round(image.height * shrink), 1)))
    photo = np.asarray(small.resize(image.size))[:, ::-1].copy()
    landmarks = entry.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (image.width - 1, 0)
    turn = np.radians(random.uniform(-6, 6))  # the crop rotates the other way
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) * random.uniform(0.94, 1.06)
    middle = landmarks.mean(0)
    return photo, (landmarks - middle) @ rotation + middle
