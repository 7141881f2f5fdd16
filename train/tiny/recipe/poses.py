"""Stage 13: faces that lie anywhere in a picture, for the IdentityNet, which is told where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderTiny
from tqdm import tqdm

from idgen.faces import align_face
from idgen.faces.align import similarity_transform

from . import config
from .crops import open_crops, shrink, template
from .device import place
from .faces import BORDER, read_faces, save
from .latents import BATCH, encode, write_latents
from .styles import STYLES


def make_poses(settings: config.Config, folders: dict[str, Path]) -> None:
    """Write what `latents.open_latents` reads, with `landmarks` (n, 5, 2) in pixels of the crop.

    Each photo is there twice, turned, scaled and shifted in two ways: as it is, and through a filter.
    """
    cv2.setNumThreads(1)  # as in stage 3
    random, filters = np.random.default_rng(settings.seed + 5), list(STYLES.values())
    trained = set(open_crops(folders["crops"], "train")["photo"].tolist())
    images, landmarks, style = [], [], []
    for row, photo, points in tqdm(read_faces(settings, folders["faces"]), desc="poses", mininterval=10):
        if row not in trained:
            continue
        for chosen in (0, 1 + random.integers(len(filters))):
            crop, goal = posed_crop(photo.image, points, settings, random)
            images.append(shrink(filters[chosen - 1](crop) if chosen else crop))
            landmarks.append(goal / 2)
            style.append(chosen)
    net = place(AutoencoderTiny.from_pretrained(folders["autoencoder"] / "final")).requires_grad_(False)
    batches = (encode(net, np.stack(images[i : i + BATCH])) for i in range(0, len(images), BATCH))
    write_latents(folders["poses"], len(images), batches)
    save(
        folders["poses"] / "table.npz",
        landmarks=np.stack(landmarks).astype(np.float32),
        style=np.array(style, np.int8),
        photo=np.arange(len(images)) // 2,
        mirrored=np.zeros(len(images), bool),
    )


def posed_crop(
    photo: np.ndarray, landmarks: np.ndarray, settings: config.Config, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A crop of twice the training size in which the face is not where all others are.

    Returns:
        (side, side, 3) uint8, and the landmarks in it, (5, 2).
    """
    side, poses = 2 * settings.crops.size, settings.identity_net
    points = template(settings.crops, side)
    middle = points.mean(0)
    angle = np.deg2rad(random.uniform(-poses.angle, poses.angle))
    turn = random.uniform(*poses.scale) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    goal = (points - middle) @ turn.T + middle + random.uniform(-poses.shift, poses.shift, 2) * side
    to_crop = similarity_transform(torch.from_numpy(landmarks).double(), torch.from_numpy(goal)).numpy()
    wide = cv2.copyMakeBorder(photo, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REFLECT_101)
    return align_face(wide, landmarks + BORDER, goal, side), landmarks @ to_crop[:, :2].T + to_crop[:, 2]
