"""What a forgetting is worth: pictures of forgotten people, look-alikes and others before and after, and attacks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ...adapter import IdentityAdapter
from ...evaluation.judges import Embeddings, read_faces
from ...identity import Identity
from ...training.base import BaseModel
from .attacks import ATTACKS, Attack, attack_prompts, denoising_losses, fine_tuned
from .drawing import Drawn, Painter
from .figures import Group, Line, line_of
from .membership import membership_accuracy, nomus
from .rows import Rows
from .tokens import TokenForgetting

LIMITS = (
    "The old adapter still exists: this file does not remove copies of it.",
    "The base model may know the person by name, and prompts with the name are not changed.",
    "Whoever has pictures of the person can train the person in again, in minutes.",
    "The forgetting can be noticed: pictures of forgotten people differ from those of people whom the adapter never "
    "knew. Compare the accuracy of membership inference with 0.5.",
    "Only embeddings by this encoder are forgotten: another adapter is not affected.",
)
"""What cannot be promised."""
TIMES = (0.2, 0.4, 0.6, 0.8)
"""Shares of the noise schedule at which membership inference reads the denoising loss."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A person of a report.

    Attributes:
        identity: For a forgotten person what was forgotten; for another one what is drawn.
        unseen: Other photos of a forgotten person, which are drawn from; `identity` if not given.
        photos: Real photos, (height, width, 3) uint8 each, that pictures are compared with. Without any, pictures by
            the adapter before it forgot take their place, as for invented people.
    """

    identity: Identity
    unseen: Identity | None = None
    photos: Sequence[np.ndarray] = ()


class ForgettingReport(NamedTuple):
    """A report.

    Attributes:
        lines: Each kind of pictures by each encoder.
        accuracy: Share of the pictures of kept people that are nearest to their own person, before and after.
        membership: Accuracy of membership inference, before and after.
        nomus: Normalised machine unlearning score, before and after.
        remaining: `TokenForgetting.remaining`, before and after.
    """

    lines: list[Line]
    accuracy: tuple[float, float]
    membership: tuple[float, float]
    nomus: tuple[float, float]
    remaining: tuple[float, float]


def measure_forgetting(
    after: IdentityAdapter,
    task: TokenForgetting,
    painter: Painter,
    subjects: Sequence[Subject],
    others: Sequence[Subject],
    *,
    seed: int = 0,
) -> ForgettingReport:
    """Compare an adapter with the one before it forgot.

    Intervals are over people, or over photos if one person was forgotten. A picture without a face counts as one of a
    stranger.

    Args:
        after: The adapter that has forgotten.
        task: What was forgotten, and the adapter before.
        painter: Draws pictures.
        subjects: The forgotten people, in the order of the task.
        others: People who are kept, such as invented ones.
        seed: Seed of the pictures.
    """
    return _Measurement(after, task, painter, seed).report(subjects, others)


class _Measurement:
    """The pictures and figures of one report."""

    def __init__(self, after: IdentityAdapter, task: TokenForgetting, painter: Painter, seed: int) -> None:
        self.before, self.after, self.task, self.painter, self.seed = task.original, after, task, painter, seed

    def report(self, subjects: Sequence[Subject], others: Sequence[Subject]) -> ForgettingReport:
        task = self.task
        forgotten, kept = self._group(subjects), self._group(others)
        alike = self._lookalikes(len(others))
        known = {name: np.concatenate([forgotten.references[name], kept.references[name]]) for name in kept.references}
        lines, drawn = [], {}
        for name, group in (("forgotten people", forgotten), ("other people", kept), ("look-alikes", alike)):
            pair = self._draw(self.before, group.rows), self._draw(self.after, group.rows)
            drawn[name] = pair
            lines += self._lines(name, group, pair[0].faces, pair[1].faces, known)
        for name, attack in ATTACKS.items():
            before, after = (self._draw(each, self._attacked(attack, each, forgotten)).faces for each in self._both)
            lines += self._lines(f"attack: {name}", forgotten, before, after, known)
        before, after = (self._draw(each, forgotten.rows, attack_prompts(self.before)).faces for each in self._both)
        lines += self._lines("attack: other prompts", forgotten, before, after, known)
        if len(self.before.to_words):
            alone = attack_prompts(self.before)[:1]
            before, after = (self._draw(each, forgotten.rows, alone, id_scale=0.0).faces for each in self._both)
            lines += self._lines("attack: pseudo-words alone", forgotten, before, after, known)
        membership = (float("nan"), float("nan"))
        if not self.before.to_tokens.fuses_text:  # such adapters cannot be trained
            pictures = drawn["forgotten people"][0]
            tuned = self._fine_tuned(forgotten, pictures)
            again = self._draw(tuned, forgotten.rows, seed=self.seed + 500).faces
            lines += self._lines("attack: 50 steps of fine-tuning", forgotten, pictures.faces, again, known)
            losses = [self._losses(each, forgotten, kept, drawn) for each in self._both]
            membership = tuple(membership_accuracy(*pair) for pair in losses)
        accuracy = tuple(self._accuracy(one.faces, kept) for one in drawn["other people"])
        scores = tuple(nomus(*pair) for pair in zip(accuracy, membership, strict=True))
        remaining = task.remaining(self.before), task.remaining(_like(self.after, self.before))
        return ForgettingReport(lines, accuracy, membership, scores, remaining)  # pyright: ignore[reportArgumentType]

    @property
    def _both(self) -> tuple[IdentityAdapter, IdentityAdapter]:
        return self.before, self.after

    @property
    def _prompt(self) -> str:
        return self.painter.prompts[0]

    def _group(self, subjects: Sequence[Subject]) -> Group:
        """Each subject's rows: the unseen photos, or the mean of the known ones."""
        rows = []
        for subject in subjects:
            found = Rows.of(self.before, subject.unseen or subject.identity)
            rows.append(found[-1:] if subject.unseen is None else found[:-1])
        persons = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        references = self._drawn_references(Rows.cat([each[:1] for each in rows]))
        for i, subject in enumerate(subjects):
            faces = [read_faces(photo, None, self.painter.judges)[0] for photo in subject.photos]
            for name in references if faces else ():
                mean = np.nanmean(np.concatenate([face[name] for face in faces]), 0)
                references[name][i] = mean / np.linalg.norm(mean)
        return Group(references, Rows.cat(rows), persons)

    def _lookalikes(self, count: int) -> Group:
        people, task = self.task.people, self.task
        each = max(1, count // len(people))
        rows = [task.kept.lookalikes(person.mean, task.threshold, each, task.random) for person in people]
        alike = task.outside(Rows.cat(rows))
        return Group(self._drawn_references(alike), alike, np.arange(len(alike)))

    def _drawn_references(self, rows: Rows) -> Embeddings:
        """Embeddings of pictures by the adapter before it forgot."""
        return self._draw(self.before, rows, seed=self.seed + 1000).faces

    def _draw(
        self,
        adapter: IdentityAdapter,
        rows: Rows,
        prompts: Sequence[str] = (),
        seed: int | None = None,
        id_scale: float | None = None,
    ) -> Drawn:
        config = adapter.config
        people = [
            Identity(
                embeddings=rows.embeds[i : i + 1].detach().cpu(),
                features=None if rows.features is None else rows.features[i : i + 1].detach().cpu(),
                encoder=config["encoder"],
                normalised=config["normalised"],
                image_encoder=config["image_encoder"],
            )
            for i in range(len(rows))
        ]
        return self.painter(adapter, people, self.seed if seed is None else seed, prompts, id_scale)

    def _fine_tuned(self, group: Group, pictures: Drawn) -> IdentityAdapter:
        rows, pipeline = group.rows, self.painter.pipeline
        return fine_tuned(self.after, pipeline, rows, pictures.latents, self._prompt, self.seed)

    def _attacked(self, attack: Attack, adapter: IdentityAdapter, group: Group) -> Rows:
        read = _like(adapter, self.before)
        self.task.random.manual_seed(self.seed)  # the same change for both adapters
        rows = [attack(self.task, read, int(who), group.rows[i : i + 1]) for i, who in enumerate(group.persons)]
        return Rows.cat(rows)

    def _lines(self, name: str, group: Group, before: Embeddings, after: Embeddings, known: Embeddings) -> list[Line]:
        return [
            line_of(name, encoder, group, before[encoder], after[encoder], known[encoder])
            for encoder in group.references
        ]

    def _accuracy(self, faces: Embeddings, group: Group) -> float:
        """Share of pictures that are nearest to their own person, by the first encoder."""
        encoder = next(iter(faces))
        cosines = np.nan_to_num(faces[encoder] @ group.references[encoder].T, nan=-1.0)
        return float((cosines.argmax(1) == group.persons).mean())

    def _losses(
        self, adapter: IdentityAdapter, forgotten: Group, kept: Group, drawn: dict[str, tuple[Drawn, Drawn]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Denoising losses of pictures before of both kinds of people."""
        pipeline = self.painter.pipeline
        base = BaseModel(pipeline, pipeline.unet.dtype, torch.device(pipeline.device))
        adapter.attach(base.unet)
        try:
            with torch.no_grad():
                found = [
                    denoising_losses(
                        base,
                        adapter,
                        group.rows,
                        drawn[name][0].latents,
                        self._prompt,
                        torch.Generator().manual_seed(self.seed),
                        TIMES,
                    )
                    for name, group in (("forgotten people", forgotten), ("other people", kept))
                ]
        finally:
            adapter.detach()
        return found[0].cpu().numpy(), found[1].cpu().numpy()


def _like(adapter: IdentityAdapter, other: IdentityAdapter) -> IdentityAdapter:
    """A copy of an adapter in the precision and on the device of another one."""
    return torch.nn.Module.to(copy.deepcopy(adapter), device=other.device, dtype=other.dtype)  # pyright: ignore[reportReturnType]
