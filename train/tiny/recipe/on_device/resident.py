"""The training set on the device: pictures, latents, captions, people and embeddings, and batches drawn there."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPTokenizer

from ..attributes import mirror
from ..captions import SUBJECTS, caption
from ..crops import open_crops
from ..device import autocast, device
from ..labels import open_labels
from .faces import embed

CAPTIONS = 8
"""Captions of a picture."""
WORDS = 3
"""How many of them call the person `<id>`."""
PAIRED = 0.8
"""Share of samples whose identity comes from another photo of the person, if there is one."""
CHUNK = 512


@dataclass(frozen=True)
class Drawn:
    """A batch.

    Attributes:
        latents: (batch, channels, side, side).
        tokens: (batch, length).
        identity: (batch, dim), of unit length; of another photo of the person, or of a changed one.
        target: (batch, dim), embedding of the picture's own photo.
        points: (batch, 5, 2), landmarks in pixels.
        person: (batch,).
        plain: (batch,), whether it is a photo, and not a styled picture.
    """

    latents: torch.Tensor
    tokens: torch.Tensor
    identity: torch.Tensor
    target: torch.Tensor
    points: torch.Tensor
    person: torch.Tensor
    plain: torch.Tensor


class Resident:
    """All training pictures on the device.

    Args:
        folders: `crops` and `labels` of the stages.
        encoder: The default face encoder.
        tokenizer: The base's tokenizer.
        marker: What stands for the person in a prompt.
        seed: Of the captions.
    """

    latents: torch.Tensor
    tokens: torch.Tensor

    def __init__(
        self, folders: Mapping[str, Path], encoder: nn.Module, tokenizer: CLIPTokenizer, marker: str, seed: int
    ) -> None:
        crops = open_crops(folders["crops"], "train")
        self.images, self.styled = (torch.from_numpy(np.asarray(crops[k])).to(device()) for k in ("images", "styled"))
        self.points = torch.from_numpy(crops["points"]).float().to(device())
        self.person = torch.from_numpy(crops["person"]).long().to(device())
        self.embeds = torch.from_numpy(crops["embeds"]).float().to(device())
        side = self.images.shape[1]
        self._flip, self._shift = torch.tensor([[-1.0, 1.0], [side - 1.0, 0.0]], device=device())
        self._order = torch.tensor([1, 0, 2, 4, 3], device=device())
        self.altered = self._altered(encoder)
        photos, styled = len(self.images), len(self.styled)
        self.styled_of = torch.from_numpy(crops["styled_of"]).to(device())
        every = torch.arange(photos, device=device())
        self.photo = torch.cat([every, every, self.styled_of])
        self.mirrored = torch.arange(2 * photos + styled, device=device())
        self.mirrored = torch.where(self.mirrored < 2 * photos, self.mirrored >= photos, self.mirrored % 2 == 1)
        self.plain = torch.arange(len(self.photo), device=device()) < 2 * photos
        self.attributes, self.style = open_labels(folders["labels"], "train"), crops["styled_as"]
        self._find_others()
        self.tokens = self._captions(tokenizer, marker, seed)
        self.nothing = torch.tensor(tokenizer("", padding="max_length").input_ids, device=device())

    def pictures(self, rows: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) in [0, 1]."""
        photos = len(self.images)
        images = torch.where(
            self.plain[rows, None, None, None],
            self.images[self.photo[rows]],
            self.styled[(rows - 2 * photos).clamp(min=0)],
        )
        images = torch.where(self.mirrored[rows, None, None, None], images.flip(2), images)
        return images.permute(0, 3, 1, 2).float() / 255

    @torch.no_grad()
    def encode(self, autoencoder: Any) -> None:
        """Encode all pictures; scaled latents."""
        parts = []
        for rows in torch.arange(len(self.photo), device=device()).split(CHUNK):
            with autocast():
                found = autoencoder.encoder(self.pictures(rows) * 2 - 1)
            parts.append((found.float() * autoencoder.config.scaling_factor).half())
        self.latents = torch.cat(parts)

    def points_of(self, rows: torch.Tensor) -> torch.Tensor:
        """Landmarks of these pictures, (n, 5, 2)."""
        points = self.points[self.photo[rows]]
        return torch.where(self.mirrored[rows, None, None], self._flipped(points), points)

    def rows(self, count: int, styled: float) -> torch.Tensor:
        """Rows of a batch, plain photos first."""
        some, photos = round(count * styled), 2 * len(self.images)
        plain = (torch.rand(count - some, device=device()) * photos).long()
        others = photos + (torch.rand(some, device=device()) * (len(self.photo) - photos)).long()
        return torch.cat([plain, others])

    def batch(self, count: int, styled: float) -> Drawn:
        """Draw a batch with this share of styled pictures."""
        rows = self.rows(count, styled)
        photo, mirrored = self.photo[rows], self.mirrored[rows]
        u, v, w = torch.rand(3, count, device=device())
        step = 1 + (u * (self.count[photo] - 1)).long()
        other = self.order[self.start[photo] + (self.rank[photo] + step) % self.count[photo]]
        alone = (self.count[photo] == 1) | (v > PAIRED)
        same = self.altered[photo, (w * self.altered.shape[1]).long()]
        caption = (torch.rand(count, device=device()) * CAPTIONS).long()
        return Drawn(
            latents=self.latents[rows].float(),
            tokens=self.tokens[rows, caption].long(),
            identity=F.normalize(torch.where(alone[:, None], same, self.embeds[other]), dim=1),
            target=torch.where(mirrored[:, None], self.altered[photo, 0], self.embeds[photo]),
            points=self.points_of(rows),
            person=self.person[photo],
            plain=self.plain[rows],
        )

    def _find_others(self) -> None:
        """For each photo the place of its person in `order`, and its own rank there."""
        self.order = self.person.argsort(stable=True)
        counts = torch.bincount(self.person)
        first = counts.cumsum(0) - counts
        self.start, self.count = first[self.person], counts[self.person]
        self.rank = torch.empty_like(self.order)
        self.rank[self.order] = torch.arange(len(self.order), device=device())
        self.rank -= self.start

    def _flipped(self, points: torch.Tensor) -> torch.Tensor:
        """Landmarks of the mirrored pictures."""
        return points[:, self._order] * self._flip + self._shift

    @torch.no_grad()
    def _altered(self, encoder: nn.Module) -> torch.Tensor:
        """Embeddings of each photo mirrored, and twice shifted, turned and scaled a little: (photos, 3, dim)."""
        parts = []
        for rows in torch.arange(len(self.images), device=device()).split(CHUNK):
            images = self.images[rows].permute(0, 3, 1, 2).float() / 255
            points = self.points[rows]
            mirrored = embed(encoder, images.flip(3), self._flipped(points))
            moved = [embed(encoder, images, points + 1.5 * torch.randn_like(points)) for _ in range(2)]
            parts.append(torch.stack([mirrored, *moved], 1).float())
        return torch.cat(parts)

    def _captions(self, tokenizer: CLIPTokenizer, marker: str, seed: int) -> torch.Tensor:
        """(rows, CAPTIONS, length) int16; each photo's captions are drawn for the picture and its mirror image."""
        dice, found = random.Random(seed), []
        photo, mirrored = self.photo.cpu().numpy(), self.mirrored.cpu().numpy()
        attributes = np.where(mirrored[:, None], mirror(self.attributes[photo]), self.attributes[photo])
        style = np.concatenate([np.zeros(2 * len(self.images), np.int8), self.style])
        for part in np.array_split(np.arange(len(photo)), max(1, len(photo) // 4096)):
            texts = [
                caption(int(style[row]), attributes[row], dice, (marker,) if i < WORDS else SUBJECTS)
                for row in part
                for i in range(CAPTIONS)
            ]
            tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="np").input_ids
            found.append(tokens.astype(np.int16).reshape(len(part), CAPTIONS, -1))
        return torch.from_numpy(np.concatenate(found)).to(device())
