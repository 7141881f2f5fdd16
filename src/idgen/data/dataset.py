"""`PairedIdentityDataset`: target photos with reference embeddings of the same person from other photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch

from ..attributes import find_direction
from ..errors import DataError
from ..faces.expression import EXPRESSION, mirrored
from .bank import IdentityBank
from .columns import column_url, open_photo
from .face_rows import RELIABILITY, FaceRows
from .far import far_references
from .framing import AlignedFraming, Framing
from .makers import augmented_column
from .pairing import Pairing
from .sample import Sample
from .storage import exists
from .triplets import TRIPLETS

CAPTION = "a photo of <id>"
"""Caption of a photo without one."""

Place: TypeAlias = "int | tuple[int, int] | tuple[int, int, int]"
"""An item of a dataset; its epoch and its number; or its epoch, its number, and the number of the batch in the run."""

Placed: TypeAlias = "tuple[torch.Tensor, np.ndarray, Sequence[int]]"
"""A picture or its latents, the landmarks in it, (5, 2), and its size conditioning."""


class PairedIdentityDataset(FaceRows, torch.utils.data.Dataset[Sample]):
    """Map-style dataset of faces. The sample of a face is a function of seed, epoch and, in a curriculum, the batch.

    Args:
        shards: Folder or URL of a prepared set.
        split: "train", "validation" or "test".
        framing: How pictures are cut from photos.
        pairing: How samples are made.
        latents: Key of the VAE whose cached latents are read (`LatentMaker.key()`); without it, pictures are read.
        text: Key of the text encoder whose cached captions are read (`TextMaker.key()`).
        triplets: Key of the models whose triplets are read (`triplets_key`).
        encoder: Stored name of the encoder of `id_embeds`; the set's, if it is not given. Embeddings of others are
            cached by `idgen prepare --cache embeddings`.
        compare: Stored names of the encoders of `target_embeds` and `compared`; `encoder`, if there is none.
        compare_references: Whether generated faces are compared with the references too.
        beside: Whether samples have embeddings for an adapter beside the one that is trained.
        seed: Seed of all random choices.

    Raises:
        DataError: The set is not finished, the split has no people, a column is missing or another model's, or poses
            are asked for where pictures are whole photos or their latents are cached.
        EncoderMismatchError: Shards of another encoder are among them.
        StatisticsError: An attribute of `moves` has no direction for the encoder.
    """

    def __init__(
        self,
        shards: str,
        split: str = "train",
        *,
        framing: Framing,
        pairing: Pairing | None = None,
        latents: str | None = None,
        text: str | None = None,
        triplets: str | None = None,
        encoder: str | None = None,
        compare: Sequence[str] = (),
        compare_references: bool = False,
        beside: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(shards, split, seed)
        self.encoder = encoder or self.manifest.encoder
        self.compare, self.compare_references = tuple(compare) or (self.encoder,), compare_references
        self.banks = {self.manifest.encoder: self.bank}
        for name in {self.encoder, *self.compare} - self.banks.keys():
            self.banks[name] = IdentityBank(shards, split, seed=seed, encoder=name)
        self.framing, self.pairing, self.seed = framing, pairing or Pairing(), seed
        self.latents, self.text, self.triplets, self.beside = latents, text, triplets, beside
        cached = latents is not None or triplets is not None
        if self.pairing.poses and (cached or not isinstance(framing, AlignedFraming)):
            raise DataError("Random poses need pictures of aligned faces, whose latents are not cached.")
        self._directions = [(find_direction(name, self.encoder), most) for name, most in self.pairing.moves.items()]
        augmented = augmented_column(None if self.encoder == self.manifest.encoder else self.encoder)
        self._augmented = augmented if exists(column_url(shards, self.names[0], augmented)) else None
        for column, key in (("latents", latents), ("text", text), (TRIPLETS, triplets)):
            for name in self.names if key is not None else ():
                self._column(name, column, key)

    def __len__(self) -> int:
        return len(self.bank.rows)

    def __getitem__(self, place: Place) -> Sample:
        """The sample of a face: `dataset[face]`, `dataset[epoch, face]` or `dataset[epoch, face, batch]`."""
        epoch, face, batch = self._place(place)
        share = self.pairing.share_of_others(batch)
        return self._sample(face, np.random.default_rng((self.seed, epoch, face)), share)

    def _place(self, place: Place) -> tuple[int, int, int | None]:
        """Epoch, item and batch."""
        epoch, item, batch = (*(place if isinstance(place, tuple) else (0, place)), None)[:3]
        assert epoch is not None
        if item is None or not 0 <= item < len(self):
            raise IndexError(item)
        return epoch, item, batch

    def _sample(
        self,
        face: int,
        random: np.random.Generator,
        share: float,
        keeps: tuple[bool, bool] | None = None,
        placed: Placed | None = None,
    ) -> Sample:
        """The sample of a face; `keeps`, what `_drops` returns, and the picture are those given, or drawn.

        `share` is that of samples whose references are other photos.
        """
        person = int(self.bank.person_of(np.array([face]))[0])
        references, own = self._references(face, person, random, share), self._is_reference(face, person)
        text, known = keeps or self._drops(random)
        flipped = placed is None and self._flips(random)
        picture, landmarks, time_ids = placed or self._picture(face, flipped, random)
        compared = self._compared(face if own else int(references[0]), references)
        return Sample(
            picture=picture,
            prompt=(self.row(face)["caption"] or CAPTION) if text else "",
            id_embeds=self._id_embeds(face, references, known, flipped, random),
            target_embeds=compared[self.compare[0]][0],
            compared=compared,
            landmarks=torch.from_numpy(landmarks).float(),
            time_ids=torch.tensor(time_ids),
            person=person,
            face=face,
            references=references,
            has_identity=known,
            is_reference=own,
            reliability=self._reliability(face, references),
            text=self._value(face, "text", self.text) if text and self.text is not None else None,
            swapped=None if self.triplets is None else self._required(face, TRIPLETS, self.triplets)[int(flipped)],
            beside=self._beside(references, text or known) if self.beside else None,
        )

    def size(self, face: int) -> tuple[int, int]:
        """Height and width of the picture; a batch has pictures of one size."""
        row = self.row(face)
        return self.framing.size(row["width"], row["height"])

    def _is_reference(self, face: int, person: int) -> bool:
        return face - int(self.bank.starts[person]) < int(self.bank.references[person])

    def _references(self, face: int, person: int, random: np.random.Generator, share: float) -> np.ndarray:
        """Numbers of the reference faces: other ones than the target, or the target itself if it may be one."""
        start, count = int(self.bank.starts[person]), int(self.bank.references[person])
        own = self._is_reference(face, person)
        if own and (count == 1 or random.random() >= share):
            return np.full(self.pairing.references, face)
        others = np.setdiff1d(np.arange(start, start + count), face)
        if self.pairing.far:
            others = others[far_references(self.pairing.far, self.row(face), [self.row(int(each)) for each in others])]
        return random.choice(others, self.pairing.references, replace=len(others) < self.pairing.references)

    def _reliability(self, face: int, references: np.ndarray) -> float:
        if (references == face).all():
            return 1.0
        target, *others = (self.row(int(each)).get(RELIABILITY) for each in (face, *references))
        mean = np.mean([1.0 if value is None else value for value in others])
        return float(mean) * (1.0 if target is None else target)

    def _drops(self, random: np.random.Generator) -> tuple[bool, bool]:
        """Whether the text is kept, and whether the identity is kept."""
        pairing, dice = self.pairing, random.random()
        text = dice < pairing.drop_text
        identity = pairing.drop_text <= dice < pairing.drop_text + pairing.drop_identity
        both = 0 <= dice - pairing.drop_text - pairing.drop_identity < pairing.drop_both
        return not (text or both), not (identity or both)

    def _flips(self, random: np.random.Generator) -> bool:
        return bool(random.random() < self.pairing.flip)

    def _id_embeds(
        self, face: int, references: np.ndarray, known: bool, flipped: bool, random: np.random.Generator
    ) -> torch.Tensor:
        if self.encoder == EXPRESSION:
            embeds = torch.from_numpy(np.array(self.banks[EXPRESSION].embeddings[face]))[None]
            embeds = mirrored(embeds) if flipped else embeds
        else:
            embeds = torch.stack([self._reference(face, int(reference)) for reference in references])
        if not known:
            return torch.zeros_like(embeds)
        for direction, most in self._directions:
            embeds = direction.move(embeds, random.uniform(-most, most))
        if chance := self.pairing.component_dropout:
            embeds = embeds * torch.from_numpy(random.random(embeds.shape) >= chance) / (1 - chance)
        return embeds.float()

    def _beside(self, references: np.ndarray, known: bool) -> torch.Tensor:
        """Embeddings of the references by the set's encoder."""
        embeds = torch.from_numpy(np.array(self.bank.embeddings[references]))
        return embeds if known else torch.zeros_like(embeds)

    def _reference(self, face: int, reference: int) -> torch.Tensor:
        """The embedding of a face; that of the augmented photo if the target is its own reference."""
        if face == reference and self._augmented is not None:
            value = self._value(reference, self._augmented)
            if value is not None:
                return value
        return torch.from_numpy(np.array(self.banks[self.encoder].embeddings[reference]))

    def _compared(self, target: int, references: np.ndarray) -> dict[str, torch.Tensor]:
        faces = [target, *(references.tolist() if self.compare_references else [])]
        return {
            name: torch.from_numpy(np.stack([self.banks[name].embeddings[i] for i in faces])) for name in self.compare
        }

    def _picture(self, face: int, flipped: bool, random: np.random.Generator) -> Placed:
        row = self.row(face)
        box, landmarks = row["box"], np.asarray(row["landmarks"]).reshape(5, 2)
        framing, poses = self.framing, self.pairing.poses
        if poses and isinstance(framing, AlignedFraming):
            framing = replace(framing, pose=poses.draw(random))
        place = framing.place(row["width"], row["height"], box, landmarks)
        points = place.mirrored() if flipped else place.landmarks
        if self.latents is not None:
            return self._required(face, "latents", self.latents)[int(flipped)], points, place.time_ids
        picture = framing.cut(open_photo(self._tar(face), row), box, landmarks)
        return torch.from_numpy(picture[:, ::-1].copy() if flipped else picture), points, place.time_ids
