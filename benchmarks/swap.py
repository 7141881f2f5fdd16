"""Swap faces of people whom no training has seen, and measure what became of them.

    python benchmarks/swap.py lfw/ --yunet yunet.onnx --encoder imagenet:mobilefacenet.onnx --pose head-pose.onnx

Each person's face is put into a photo of another person. The encoder has seen no training. Identity is compared with
another photo of the person; landmarks, pose, expression and background with the photo that is edited. A smile is
told by a logistic regression on mouths, fitted to the labels of LFW photos (`--expressions`) of people who are not
measured. The background is what lies outside of the oval around the face, by the landmarks of YuNet. Pictures that are
already in `--pictures` are not drawn again.
"""

from __future__ import annotations

import csv
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from idgen import IdentityNet
from idgen.commands.shared import open_identity_net, open_pipeline
from idgen.errors import FaceError
from idgen.evaluation.edits import landmark_error, pose_error, psnr
from idgen.evaluation.intervals import mean_interval
from idgen.faces import Detection, align_face, face_oval, load_photo, open_encoder
from idgen.faces.opencv import YuNetDetector

HELD_OUT = Path(__file__).parents[1] / "train" / "splits" / "lfw_test.txt"
SETTINGS: dict[str, dict[str, Any]] = {
    "strength 0.5": {"strength": 0.5},
    "strength 0.8": {},
    "strength 1": {"strength": 1.0},
    "0.8, no IdentityNet": {"identity_net": None},
    "0.8, own colours": {"match_colours": False},
}
UNCHANGED, TRAINED = "no change", "0.8, trained for swapping"
COLUMNS = ("identity", "person replaced", "landmarks", "pose (°)", "same smile", "changed", "background (dB)")
MOST_DB = 60.0
"""PSNR of equal pictures, which is infinite, in means."""


@dataclass(frozen=True)
class Judge:
    """The networks that measure a picture with one face in it."""

    detector: YuNetDetector
    encoder: Any
    pose_net: Any
    smile: LogisticRegression

    def find(self, photo: np.ndarray) -> Detection | None:
        return max(self.detector.detect(photo), key=lambda face: face.area, default=None)

    def embed(self, photo: np.ndarray, points: np.ndarray) -> np.ndarray:
        found = self.encoder.embed(self.encoder.crop(photo, points)[None])[0]
        return found / np.linalg.norm(found)

    def pose(self, photo: np.ndarray, face: Detection) -> np.ndarray:
        x0, y0, x1, y1 = (int(max(v, 0)) for v in face.box)
        blob = cv2.dnn.blobFromImage(photo[y0:y1, x0:x1, ::-1].copy(), 1.0, (60, 60))
        self.pose_net.setInput(blob)
        return np.array(
            [float(out.ravel()[0]) for out in self.pose_net.forward(self.pose_net.getUnconnectedOutLayersNames())]
        )

    def smiles(self, photo: np.ndarray, points: np.ndarray) -> bool:
        return bool(self.smile.predict(mouth(photo, points)[None])[0])


def mouth(photo: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The mouth of an aligned face, as grey values of mean 0 and deviation 1."""
    part = Image.fromarray(align_face(photo, points)[74:112, 28:84]).convert("L").resize((28, 19))
    grey = np.asarray(part, np.float64).ravel()
    return (grey - grey.mean()) / (grey.std() + 1e-6)


def main(
    photos: tyro.conf.Positional[Path],
    /,
    yunet: Path,
    pose: Path,
    encoder: str,
    expressions: Path,
    people: int = 24,
    labelled: int = 800,
    pictures: Path = Path("swapped"),
    trained: str | None = None,
) -> None:
    """Print the table.

    Args:
        photos: Folder with LFW's tar files.
        yunet: YuNet, which finds the faces that are measured.
        pose: Head-pose network of Open Model Zoo, as ONNX.
        encoder: Unseen face encoder, as `open_encoder` opens it.
        expressions: Table of LFW's expressions, with the columns file and emotion.
        people: Number of people.
        labelled: Number of labelled photos that the smile is learned from.
        pictures: Folder for the pictures.
        trained: Adapter of `idgen train reward --rollout.method swap`, for a row of its own.
    """
    held = {line for line in HELD_OUT.read_text().splitlines() if not line.startswith("#")}
    emotions = {row["file"]: row["emotion"] for row in csv.DictReader(expressions.open())}
    files = read_files(photos, held, emotions, labelled)
    detector = YuNetDetector(yunet)
    smile, accuracy = fit_smile(files.labelled, detector)
    judge = Judge(detector, open_encoder(encoder), cv2.dnn.readNet(str(pose)), smile)
    pictures.mkdir(parents=True, exist_ok=True)
    drawers = [Drawer(name, None, options) for name, options in SETTINGS.items()]
    drawers += [Drawer(TRAINED, trained, {})] if trained else []
    rows = measured(files, people, judge, drawers, pictures)
    table = Table(
        "", *COLUMNS, title=f"{len(rows[UNCHANGED])} people; smile told right in {accuracy:.0%} of other photos"
    )
    for setting, values in rows.items():
        array = np.array(values, float)
        cells = [mean_interval(array[:, k], np.arange(len(array))) for k in range(len(COLUMNS))]
        table.add_row(setting, *(f"{c.value:.3f} ({c.low:.3f} … {c.high:.3f})" for c in cells))
    Console(width=220).print(table)


@dataclass(frozen=True)
class Drawer:
    """Swaps faces in one way.

    Attributes:
        name: Name of the row.
        adapter: Identity adapter; the built-in one if None.
        options: Arguments of `swap`.
    """

    name: str
    adapter: str | None
    options: dict[str, Any]

    @cached_property
    def opened(self) -> tuple[Any, IdentityNet]:
        """The pipeline and the IdentityNet."""
        pipe = open_pipeline("tiny", self.adapter, None, "cpu")
        pipe.set_progress_bar_config(disable=True)
        return pipe, open_identity_net(None, "tiny", self.adapter)

    def __call__(self, source: np.ndarray, target: np.ndarray, file: Path, seed: int) -> np.ndarray:
        """The target with the face of the source; the file shows both beside it."""
        if file.is_file():
            return np.asarray(Image.open(file).convert("RGB"))[:, -target.shape[1] :]
        pipe, net = self.opened
        options = {"identity_net": net, "face": "largest", **self.options}
        person = pipe.encode_identity(source, face="largest")
        edited = pipe.swap(target, id_embeds=person, generator=torch.Generator().manual_seed(seed), **options)
        picture = np.asarray(edited.images[0])
        Image.fromarray(np.hstack([source, target, picture])).save(file)
        return picture


def measured(
    files: Files, people: int, judge: Judge, drawers: list[Drawer], pictures: Path
) -> dict[str, list[list[float]]]:
    """Setting → the values of COLUMNS for each person, with those of the unchanged photo first."""
    chosen = [name for name in sorted(files.people) if len(files.people[name]) > 1]
    chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, people).astype(int)]
    rows: dict[str, list[list[float]]] = {name: [] for name in (UNCHANGED, *(each.name for each in drawers))}
    for i, name in enumerate(chosen):
        source, other = (load_photo(data) for data in files.people[name][:2])
        target = load_photo(files.people[chosen[(i + 1) % len(chosen)]][0])
        face, elsewhere = judge.find(target), judge.find(other)
        if face is None or elsewhere is None:
            continue
        try:
            drawn = {each.name: each(source, target, pictures / f"{i}-{each.name}.png", i) for each in drawers}
        except FaceError as error:  # the default detector does not find a face
            print(f"{name}: {error}", flush=True)
            continue
        truth = judge.embed(other, elsewhere.landmarks)
        for setting, picture in {UNCHANGED: target, **drawn}.items():
            rows[setting].append(measure(judge, picture, target, face, truth))
    return rows


def measure(judge: Judge, picture: np.ndarray, target: np.ndarray, face: Detection, truth: np.ndarray) -> list[float]:
    """The values of COLUMNS; landmarks, pose and smile are missing where no face is found any more."""
    found, before = judge.find(picture), judge.embed(target, face.landmarks)
    points = face.landmarks if found is None else found.landmarks
    embedding = judge.embed(picture, points)
    kept = [np.nan] * 3
    if found is not None:
        same = judge.smiles(picture, points) == judge.smiles(target, face.landmarks)
        turned = pose_error(judge.pose(picture, found), judge.pose(target, face))
        kept = [landmark_error(points, face.landmarks), turned, float(same)]
    changed = float((picture != target).any(-1).mean())
    background = psnr(picture, target, face_oval(face.landmarks, *target.shape[:2]) == 0)
    return [float(embedding @ truth), float(embedding @ before), *kept, changed, min(background, MOST_DB)]


@dataclass(frozen=True)
class Files:
    """Photos by person, and (photo, whether it smiles) of other people."""

    people: dict[str, list[bytes]]
    labelled: list[tuple[bytes, bool]]


def read_files(folder: Path, held: set[str], emotions: dict[str, str], count: int) -> Files:
    """Photos of the held-out people, and labelled ones of others."""
    people: dict[str, list[bytes]] = defaultdict(list)
    labelled: list[tuple[bytes, bool]] = []
    for path in sorted(folder.glob("**/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                name, emotion = Path(member.name).parent.name, emotions.get(Path(member.name).name)
                if name in held and (data := tar.extractfile(member)):
                    people[name].append(data.read())
                elif (
                    emotion in ("neutral", "happiness") and len(labelled) < count and (data := tar.extractfile(member))
                ):
                    labelled.append((data.read(), emotion == "happiness"))
    return Files(people, labelled)


def fit_smile(labelled: list[tuple[bytes, bool]], detector: YuNetDetector) -> tuple[LogisticRegression, float]:
    """A classifier of mouths, fitted on three quarters of the photos, and its accuracy on the others."""
    inputs, labels = [], []
    for data, smiles in labelled:
        photo = load_photo(data)
        if faces := detector.detect(photo):
            inputs.append(mouth(photo, max(faces, key=lambda face: face.area).landmarks))
            labels.append(smiles)
    split = 3 * len(inputs) // 4
    model = LogisticRegression(C=0.01, max_iter=300).fit(np.stack(inputs[:split]), labels[:split])
    return model, float(model.score(np.stack(inputs[split:]), labels[split:]))


if __name__ == "__main__":
    tyro.cli(main)
