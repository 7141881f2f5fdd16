"""Stage 5: what the face encoders say of each photo, and batches that draw one photo of a person from another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from idgen.faces import ARCFACE_TEMPLATE, DLIB_TEMPLATE, DlibEncoder, align_face
from idgen.faces.opencv import YuNetDetector
from idgen.losses import Bank
from idgen.training.batch import Batch

from . import config
from .captions import SUBJECTS, caption
from .crops import BORDER, central_face, template
from .likeness import UnseenEncoder
from .loop import random_for
from .photos import read_photos, test_people

CHUNK = 64


def make_embeddings(settings: config.Config, folder: Path) -> None:
    """Write `train.npz` and `test.npz`, row for row as in the crops: `embeds` (n, 128) by the default encoder, not
    normalised, and for the people who are held out `unseen` (n, 128) by the encoder that nothing is trained with."""
    detector, held_out = YuNetDetector(settings.paths.yunet), test_people(settings.paths.test_people)
    chips: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    arcface: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    encoder = DlibEncoder()
    for person, _, photo in tqdm(read_photos(settings.paths.photos), desc="embeddings", mininterval=10):
        face = central_face(detector.detect(photo), photo.shape)
        if face is None:
            continue
        part = "test" if person in held_out else "train"
        wide = np.pad(photo, ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="reflect")
        chips[part].append(align_face(wide, face.landmarks + BORDER, DLIB_TEMPLATE, 150))
        if part == "test":
            arcface.append(align_face(wide, face.landmarks + BORDER, ARCFACE_TEMPLATE, 112))
        if len(chips[part]) == CHUNK:
            found[part].append(encoder.embed(np.stack(chips[part])))
            chips[part].clear()
    unseen = UnseenEncoder(settings.paths.yunet.with_name("mobilefacenet_eval.onnx")).embed(np.stack(arcface))
    for part, rest in chips.items():
        embeds = np.concatenate([*found[part], encoder.embed(np.stack(rest))] if rest else found[part])
        more = {"unseen": unseen} if part == "test" else {}
        temporary = folder / f"{part}.tmp.npz"
        np.savez(temporary, allow_pickle=False, embeds=embeds, **more)
        temporary.replace(folder / f"{part}.npz")


class CachedPeople:
    """An endless stream of batches from the caches; which samples a batch holds follows from its number.

    Args:
        settings: Of the recipe.
        crops: Folder of the crops.
        latents: Folder of the latents; where they have landmarks, all faces are found.
        embeddings: Folder of the embeddings.
        size: Samples in a batch.
    """

    def __init__(self, settings: config.Config, crops: Path, latents: Path, embeddings: Path, size: int) -> None:
        self.ours, self.seed, self.number, self.size = settings.adapter, settings.seed, 0, size
        with np.load(crops / "train.npz", allow_pickle=False) as arrays:
            _, self.person = np.unique(arrays["person"], return_inverse=True)
        with np.load(embeddings / "train.npz", allow_pickle=False) as arrays:
            self.embeds = torch.from_numpy(arrays["embeds"])
        with np.load(latents / "latents.npz", allow_pickle=False) as arrays:
            self.latents = torch.from_numpy(arrays["latents"])
            self.style, self.attributes, self.photo = arrays["style"], arrays["attributes"], arrays["photo"]
            self.posed = "landmarks" in arrays
            points = arrays["landmarks"] if self.posed else template(settings.crops)[None]
            self.points = torch.from_numpy(points).float().expand(len(self.style), -1, -1)
        self.photos_of = [np.flatnonzero(self.person == person) for person in range(self.person.max() + 1)]
        self.rows = [np.flatnonzero((self.style > 0) == styled) for styled in (False, True)]

    def __iter__(self) -> Iterator[Batch]:
        while True:
            number, self.number = self.number, self.number + 1
            yield self.batch(number)

    def state_dict(self) -> dict[str, Any]:
        """The number of the next batch."""
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there."""
        self.number = state["number"]

    def batch(self, number: int) -> Batch:
        """Targets, plain and styled, each with the embedding of another photo of its person if there is one."""
        numbers = random_for(self.seed + 2, number)
        styled = round(self.ours.styled_share * self.size)
        counts = (self.size - styled, styled)
        rows = np.concatenate(
            [
                of[torch.randint(len(of), (n,), generator=numbers).numpy()]
                for of, n in zip(self.rows, counts, strict=True)
            ]
        )
        dice = random.Random(self.seed * 1_000_003 + number)
        targets = self.photo[rows]
        references = torch.as_tensor([self._reference(int(photo), dice) for photo in targets])
        id_embeds = torch.nn.functional.normalize(self.embeds[references], dim=-1)
        dropped = torch.rand(len(rows), generator=numbers) < self.ours.identity_drop
        return Batch(
            latents=self.latents[torch.as_tensor(rows)].float().contiguous(memory_format=torch.channels_last),
            prompts=tuple(self._caption(int(row), not drop, dice) for row, drop in zip(rows, dropped, strict=True)),
            id_embeds=torch.where(dropped[:, None], 0.0, id_embeds),
            target_embeds=self.embeds[torch.as_tensor(targets)],
            landmarks=self.points[torch.as_tensor(rows)],
            face_found=torch.as_tensor(self.style[rows] == 0) & ~dropped | self.posed,
            persons=torch.as_tensor(self.person[targets]),
        )

    def bank(self, persons: torch.Tensor) -> Bank:
        """People at random, other ones at each call; the loss leaves out the sample's own."""
        numbers = random_for(self.seed + 3, self.number)
        chosen = torch.randint(len(self.embeds), (self.ours.negatives,), generator=numbers)
        return Bank(self.embeds[chosen], torch.as_tensor(self.person)[chosen])

    def _reference(self, target: int, dice: random.Random) -> int:
        """Another photo of the same person for a share of the samples, or the target where there is none."""
        if dice.random() >= self.ours.paired_share:
            return target
        others = [photo for photo in self.photos_of[self.person[target]] if photo != target]
        return int(dice.choice(others)) if others else target

    def _caption(self, row: int, known: bool, dice: random.Random) -> str:
        if dice.random() < self.ours.caption_drop:
            return ""
        subjects = ("<id>",) if known and dice.random() < self.ours.word_share else SUBJECTS
        return caption(self.style[row], self.attributes[row], dice, subjects)
