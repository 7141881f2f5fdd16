"""Training photos with the face turned, scaled and shifted at random, from which an IdentityNet learns to follow
landmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from idgen.data.framing import AlignedFraming
from idgen.data.poses import Poses
from idgen.faces import align_face, draw_keypoints

from .. import config
from ..crops import open_crops, shrink
from ..device import autocast, device
from ..faces import BORDER, load_faces, read_faces, save
from ..pack import compress, decompress

POSES = Poses(angle=25, scale=(0.7, 1.05), shift=0.1)
EACH = 4
"""One in so many photos."""
FILE = "poses.npz"
CHUNK = 256


def pack_poses(settings: config.Config, folders: Mapping[str, Path], output: Path) -> None:
    """Write one photo in four in a random pose."""
    crops, faces = open_crops(folders["crops"], "train"), load_faces(settings, folders["faces"])
    rows = {photo: row for row, photo in enumerate(crops["photo"].tolist()) if row % EACH == 0}
    size, numbers = settings.crops.size, np.random.default_rng(settings.seed)
    pictures, points, of = [], [], []
    every = read_faces(settings, folders["faces"])
    for number, photo, landmarks in tqdm(every, total=len(faces["name"]), mininterval=10):
        if number in rows:
            framing = AlignedFraming(size, settings.crops.zoom, settings.crops.rise, POSES.draw(numbers))
            large = align_face(photo.image, landmarks, 2 * framing.template, 2 * size, mirrored=BORDER)
            pictures.append(compress(shrink(large)))
            points.append(framing.points(landmarks))
            of.append(rows[number])
    save(
        output / FILE,
        bytes=np.frombuffer(b"".join(pictures), np.uint8),
        lengths=np.array([len(picture) for picture in pictures]),
        points=np.array(points, np.float16),
        photo=np.array(of, np.int32),
    )


@dataclass(frozen=True)
class Posed:
    """The pictures on the device.

    Attributes:
        latents: (n, channels, side, side).
        drawn: (n, side, side, 3) uint8, the drawn landmarks.
        photo: (n,), rows of the photos.
    """

    latents: torch.Tensor
    drawn: torch.Tensor
    photo: torch.Tensor


@torch.no_grad()
def open_poses(source: Path, autoencoder: Any) -> Posed:
    """Read what `pack_poses` wrote."""
    with np.load(source / FILE, allow_pickle=False) as arrays:
        table = dict(arrays)
    images = torch.from_numpy(np.stack(decompress(table["bytes"].tobytes(), table["lengths"]))).to(device())
    side, latents = images.shape[1], []
    for part in images.split(CHUNK):
        with autocast():
            found = autoencoder.encoder(part.permute(0, 3, 1, 2).float() / 127.5 - 1)
        latents.append(found.float() * autoencoder.config.scaling_factor)
    drawn = np.stack([draw_keypoints(points.astype(np.float64), (side, side)) for points in table["points"]])
    photo = torch.from_numpy(table["photo"]).long().to(device())
    return Posed(torch.cat(latents), torch.from_numpy(drawn).to(device()), photo)
