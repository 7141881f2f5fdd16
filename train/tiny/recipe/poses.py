"""Stage 10: faces that lie anywhere in a picture, for the IdentityNet, which is told where."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import AutoencoderTiny
from tqdm import tqdm

from idgen.faces import align_face
from idgen.faces.align import similarity_transform
from idgen.faces.opencv import YuNetDetector

from . import config
from .crops import BORDER, central_face, shrink, template
from .device import place
from .latents import encode
from .photos import read_photos, test_people
from .styles import STYLES


def make_poses(settings: config.Config, folders: dict[str, Path]) -> None:
    """Write `latents.npz`, of the form of stage 3's, with `landmarks` (n, 5, 2) in pixels of the crop.

    Each photo is there twice, turned, scaled and shifted in two ways: as it is, and through a filter.
    """
    cv2.setNumThreads(1)  # as in stage 1
    detector, held_out = YuNetDetector(settings.paths.yunet), test_people(settings.paths.test_people)
    random, filters = np.random.default_rng(settings.seed + 5), list(STYLES.values())
    images, landmarks, style = [], [], []
    for person, _, photo in tqdm(read_photos(settings.paths.photos), desc="poses", mininterval=10):
        face = central_face(detector.detect(photo), photo.shape)
        if face is None or person in held_out:
            continue
        for chosen in (0, 1 + random.integers(len(filters))):
            crop, points = posed_crop(photo, face.landmarks, settings, random)
            images.append(shrink(filters[chosen - 1](crop) if chosen else crop))
            landmarks.append(points / 2)
            style.append(chosen)
    with np.load(folders["crops"] / "train.npz", allow_pickle=False) as arrays:
        attributes = arrays["attributes"].repeat(2, axis=0)
    net = place(AutoencoderTiny.from_pretrained(folders["autoencoder"] / "final")).requires_grad_(False)
    temporary = folders["poses"] / "latents.tmp.npz"
    np.savez(
        temporary,
        allow_pickle=False,
        latents=encode(net, np.stack(images)),
        landmarks=np.stack(landmarks).astype(np.float32),
        attributes=attributes,
        style=np.array(style, np.int8),
        photo=np.arange(len(images)) // 2,
    )
    temporary.replace(folders["poses"] / "latents.npz")


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
