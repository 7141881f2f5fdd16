"""Restore damaged faces of people whom no training has seen, with and without the person, and measure the results.

    python benchmarks/restore.py lfw/ --yunet yunet.onnx --encoder imagenet:mobilefacenet.onnx --restorer restorer/

The photos are damaged by blur, reduction to an eighth and JPEG. The person is enrolled from another photo. PSNR is to
the undamaged face; Sim(GT) the cosine to it by an encoder that no training has seen. Intervals are bootstrapped over
people.
"""

from __future__ import annotations

import tarfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image

from idgen import load_tiny
from idgen.adapter import Restorer
from idgen.errors import FaceError
from idgen.evaluation.edits import psnr
from idgen.evaluation.intervals import mean_interval
from idgen.faces import Degradation, FaceEncoder, load_photo, open_encoder
from idgen.faces.opencv import YuNetDetector
from idgen.pipelines.face_crop import FaceCrop, crop_framing

HELD_OUT = Path(__file__).parents[1] / "train" / "splits" / "lfw_test.txt"
DAMAGE = Degradation(blur=1, shrink=8, jpeg=40)
WAYS: Mapping[str, dict[str, Any]] = {
    "without the person": {"id_scale": 0.0},
    "with the person, scale by the damage": {},
}
"""Name of a way → arguments of `restore`."""


def main(
    photos: tyro.conf.Positional[Path],
    /,
    yunet: Path,
    encoder: str,
    restorer: str,
    people: int = 24,
    shrink: float = 8.0,
    pictures: Path | None = None,
) -> None:
    """Print the table.

    Args:
        photos: Folder with LFW's tar files.
        yunet: YuNet, which finds the faces in the undamaged photos.
        encoder: Unseen face encoder, as `open_encoder` opens it.
        restorer: Restorer for the built-in model: a folder or a hub id.
        people: Number of people.
        shrink: Factor by which faces are reduced.
        pictures: Folder for the pictures.
    """
    detector, judge, pipe = YuNetDetector(yunet), open_encoder(encoder), load_tiny()
    net = Restorer.from_pretrained(restorer)
    pipe.set_progress_bar_config(disable=True)
    damage = Degradation(blur=DAMAGE.blur, shrink=shrink, jpeg=DAMAGE.jpeg)
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for i, (photo, other) in enumerate(pairs(photos, people)):
        faces = detector.detect(photo)
        if not faces:
            continue
        try:
            person = pipe.encode_identity(other, face="largest")
        except FaceError:
            continue
        landmarks = max(faces, key=lambda face: face.area).landmarks
        whole = FaceCrop.of(photo, landmarks, crop_framing(pipe))
        truth, points = whole.pixels, whole.points
        damaged = damage(truth, seed=i)
        results = {"damaged": damaged}
        for way, options in WAYS.items():
            seeded = torch.Generator().manual_seed(i)
            found = pipe.restore(
                damaged, restorer=net, id_embeds=person, landmarks=points, generator=seeded, **options
            )
            results[way] = np.asarray(found.images[0])
        for way, picture in results.items():
            rows[way].append([psnr(picture, truth), similarity(judge, picture, truth, points)])
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.hstack([truth, *results.values()])).save(pictures / f"{i}.png")
    show(rows)


def pairs(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two photos of each of some people of the test split, evenly chosen."""
    held = {line for line in HELD_OUT.read_text().splitlines() if not line.startswith("#")}
    found: dict[str, list[bytes]] = defaultdict(list)
    for path in sorted(folder.glob("**/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                name = Path(member.name).parent.name
                if name in held and len(found[name]) < 2 and (data := tar.extractfile(member)):
                    found[name].append(data.read())
    several = [name for name in sorted(found) if len(found[name]) == 2]
    chosen = [several[i] for i in np.linspace(0, len(several) - 1, count).astype(int)]
    return [(load_photo(found[name][0]), load_photo(found[name][1])) for name in chosen]


def similarity(judge: FaceEncoder, picture: np.ndarray, truth: np.ndarray, points: np.ndarray) -> float:
    """The cosine of the faces of two pictures, which lie at the same landmarks."""
    first, second = (judge.embed(judge.crop(each, points)[None])[0] for each in (picture, truth))
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def show(rows: Mapping[str, list[list[float]]]) -> None:
    """Print the table, and the difference that the person makes."""
    print(f"{len(next(iter(rows.values())))} people\n\n| | PSNR (dB) | Sim(GT) |\n| --- | --- | --- |")
    without, with_person = (np.array(rows[way]) for way in WAYS)
    values = {**{way: np.array(found) for way, found in rows.items()}, "what the person adds": with_person - without}
    for way, array in values.items():
        cells = [mean_interval(array[:, k], np.arange(len(array))) for k in range(2)]
        print(f"| {way} | {' | '.join(f'{c.value:.3f} ({c.low:.3f} … {c.high:.3f})' for c in cells)} |")


if __name__ == "__main__":
    tyro.cli(main)
