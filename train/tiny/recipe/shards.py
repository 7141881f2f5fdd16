"""Stage `photos`: what `idgen prepare` and `idgen evaluate` read, as tars in webdataset's form and as folders."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import config
from .attributes import mirror
from .captions import SUBJECTS, caption
from .crops import open_crops
from .faces import read_faces
from .labels import open_labels

WORD = ("<id>",)
PER_PERSON = 2
"""Photos of a held-out person: the reference and the target."""


def write_photos(settings: config.Config, folders: Mapping[str, Path]) -> None:
    """Write the training photos and styled crops to `train.tar`, and photos of held-out people to `people/NAME/`.

    A photo is the original file, with person, landmarks and caption in its json. A styled crop is a picture of the
    training size, which is a target and never a reference.
    """
    output = folders["photos"]
    crops = open_crops(folders["crops"], "train")
    row_of = {photo: row for row, photo in enumerate(crops["photo"].tolist())}
    dice = random.Random(settings.seed)
    attributes = open_labels(folders["labels"], "train")
    held_out = _held_out_people(open_crops(folders["crops"], "test"))
    temporary = output / "train.tar.tmp"
    with tarfile.open(temporary, "w") as tar:
        for number, photo, landmarks in read_faces(settings, folders["faces"]):
            if number in held_out:
                file = output / "people" / held_out[number] / Path(photo.file).name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(photo.data)
            if (row := row_of.get(number)) is not None:
                told = {"person": str(crops["person"][row]), "landmarks": landmarks.ravel().tolist()}
                said = _caption(settings, 0, attributes[row], dice)
                _add(tar, f"{number:06d}{Path(photo.file).suffix}", photo.data, {**told, "caption": said})
        for name, picture, told in _styled(settings, crops, attributes, dice):
            _add(tar, name, picture, told)
    temporary.replace(output / "train.tar")


def _styled(
    settings: config.Config, crops: dict[str, np.ndarray], attributes: np.ndarray, dice: random.Random
) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Name, file and json of styled crops, as many as their share; every second one of the crops is mirrored."""
    share, photos = settings.photos.styled_share, len(crops["images"])
    count = min(len(crops["styled"]), round(share / (1 - share) * photos))
    points = settings.crops.template
    for row in sorted(dice.sample(range(len(crops["styled"])), count)):
        photo, picture, said = crops["styled_of"][row], crops["styled"][row], attributes[crops["styled_of"][row]]
        landmarks = points
        if row % 2:
            picture, said = picture[:, ::-1], mirror(said[None])[0]
            landmarks = points[[1, 0, 2, 4, 3]] * (-1, 1) + (settings.crops.size - 1, 0)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG")
        told = {
            "person": str(crops["person"][photo]),
            "landmarks": landmarks.ravel().tolist(),
            "caption": _caption(settings, int(crops["styled_as"][row]), said, dice),
            "reference": False,
        }
        yield f"styled-{row:06d}.png", buffer.getvalue(), told


def _held_out_people(crops: dict[str, np.ndarray]) -> dict[int, str]:
    """Numbers of the first photos of people who are held out and have two of them -> the people's names."""
    found: dict[int, str] = {}
    for name in np.unique(crops["person"]).tolist():
        photos = crops["photo"][crops["person"] == name][:PER_PERSON].tolist()
        if len(photos) == PER_PERSON:
            found |= dict.fromkeys(photos, name)
    return found


def _caption(settings: config.Config, style: int, attributes: np.ndarray, dice: random.Random) -> str:
    return caption(style, attributes, dice, WORD if dice.random() < settings.photos.word_share else SUBJECTS)


def _add(tar: tarfile.TarFile, name: str, data: bytes, told: dict[str, Any]) -> None:
    for file, content in ((name, data), (f"{Path(name).stem}.json", json.dumps(told).encode())):
        member = tarfile.TarInfo(file)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
