"""Stage 9: what the face encoders say of each photo, and batches that draw one photo of a person from another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idgen.faces import ARCFACE_TEMPLATE, DlibEncoder
from idgen.losses import Bank
from idgen.training.batch import Batch

from . import config
from .captions import SUBJECTS, caption
from .crops import open_crops, template
from .faces import crop_face, load_faces, read_faces, save
from .labels import open_labels
from .latents import open_latents
from .likeness import UnseenEncoder
from .loop import random_for


def make_embeddings(settings: config.Config, folders: dict[str, Path]) -> None:
    """Write `train.npz` and `test.npz`, row for row as in the crops: `embeds` (n, 128) by the default encoder, not
    normalised, and for the people who are held out `unseen` (n, 128) by the encoder that nothing is trained with."""
    embeds = load_faces(settings, folders["faces"])["embeds"]
    rows = {part: open_crops(folders["crops"], part)["photo"] for part in ("train", "test")}
    tested = set(rows["test"].tolist())
    chips = [
        crop_face(photo.image, landmarks, ARCFACE_TEMPLATE, 112)
        for row, photo, landmarks in read_faces(settings, folders["faces"])
        if row in tested
    ]
    unseen = UnseenEncoder(settings.paths.yunet.with_name("mobilefacenet_eval.onnx")).embed(np.stack(chips))
    save(folders["embeddings"] / "train.npz", embeds=embeds[rows["train"]])
    save(folders["embeddings"] / "test.npz", embeds=embeds[rows["test"]], unseen=unseen)


class CachedPeople:
    """An endless stream of batches from the caches; which samples a batch holds follows from its number.

    Args:
        settings: Of the recipe.
        folders: Of the stages. Where the latents have landmarks, all faces are found.
        size: Samples in a batch.
    """

    def __init__(self, settings: config.Config, folders: dict[str, Path], size: int) -> None:
        self.ours, self.seed, self.number, self.size = settings.adapter, settings.seed, 0, size
        _, self.person = np.unique(open_crops(folders["crops"], "train")["person"], return_inverse=True)
        with np.load(folders["embeddings"] / "train.npz", allow_pickle=False) as arrays:
            self.embeds = torch.from_numpy(arrays["embeds"])
        data = open_latents(folders["latents"], open_labels(folders["labels"], "train"))
        self.latents, self.style, self.attributes, self.photo = (
            data[key] for key in ("latents", "style", "attributes", "photo")
        )
        self.posed = "landmarks" in data
        points = data["landmarks"] if self.posed else template(settings.crops)[None]
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
        dropped = torch.rand(len(rows), generator=numbers) < self.ours.identity_drop
        return Batch(
            latents=torch.from_numpy(self.latents[rows]).float().contiguous(memory_format=torch.channels_last),
            prompts=tuple(self._caption(int(row), not drop, dice) for row, drop in zip(rows, dropped, strict=True)),
            id_embeds=torch.where(dropped[:, None], 0.0, self.embeds[references]),
            encoder=DlibEncoder.name,
            target_embeds=self.embeds[torch.as_tensor(targets)],
            landmarks=self.points[torch.as_tensor(rows)],
            face_found=torch.as_tensor(self.style[rows] == 0) | self.posed,
            has_identity=~dropped,
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
