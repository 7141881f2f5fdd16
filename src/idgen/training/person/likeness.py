"""How like the person the pictures are: measured during a run by a held-out photo, and when to stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import StatisticsError, TrainingError
from ...faces import EncoderStatistics, FaceEncoder, open_encoder, spec_of
from ...files import read_json, write_bytes
from ...terminal import warn
from ...typed import arguments
from ..checkpoint import list_checkpoints
from ..step import TrainingStep
from ..tracking import read_rows
from ..validation import SIMILARITY

BEST = "best"
"""Folder of the weights with the highest similarity."""

LIKENESS_FILE = "likeness.json"
FALSE_MATCH_RATE = 1e-3
"""Of the threshold that similarities are shown with."""


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """The similarity of the pictures to the person before and after a run.

    Attributes:
        encoder: Face encoder that it is measured with.
        held_out: Whether the photo that pictures are compared with was not trained on.
        before: Mean cosine before the first update.
        after: Mean cosine of the weights that are saved.
        update: Update of those weights; 0 if none was more similar than the start.
        photos: Mean cosine of that photo and the others, None for a single photo.
    """

    encoder: str
    held_out: bool
    before: float
    after: float
    update: int
    photos: float | None

    def save(self, folder: Path) -> None:
        """Write `likeness.json`."""
        write_bytes(folder / LIKENESS_FILE, json.dumps(asdict(self), indent=1).encode(), TrainingError)

    @classmethod
    def load(cls, folder: Path) -> Likeness:
        """Read what `save` wrote."""
        file = folder / LIKENESS_FILE
        return cls(**arguments(cls, read_json(file, TrainingError), str(file), TrainingError))

    def lines(self) -> list[str]:
        """What is said at the end of a run."""
        photo = "the photo that was held out" if self.held_out else "the photos that were trained on"
        said = [
            f"Similarity to {photo}, by {self.encoder}: {self.before:.3f} before, {self.after:.3f} after "
            f"{self.update} updates{self._photos()}{self._strangers()}."
        ]
        if not self.update:
            said.append("No checkpoint was more similar than the start, which is kept.")
        if not self.held_out:
            said.append("With three photos or more, one is held out, and the figure is that of a new photo.")
        return said

    def _photos(self) -> str:
        return "" if self.photos is None else f"; that photo and the others have {self.photos:.3f}"

    def _strangers(self) -> str:
        try:
            statistics = EncoderStatistics.of(self.encoder)
            threshold = statistics.threshold(FALSE_MATCH_RATE)
        except StatisticsError:
            return ""
        return f", two strangers {statistics.impostor.mean:.3f}; {threshold:.3f} is the threshold for one person"


def open_judge(spec: str | None, own: str, used: bool) -> FaceEncoder:
    """The face encoder that measures the pictures.

    Args:
        spec: As for `open_encoder`; None for the encoder of the run.
        own: Name of the encoder of the run.
        used: Whether an adapter or a loss reads that encoder, so that it is no independent measure.

    Raises:
        TrainingError: The encoder is one that training uses.
    """
    if spec is None:
        if used:
            warn(f"{own}, which training uses, measures the pictures. Give another face encoder with --eval-encoder.")
        return open_encoder(spec_of(own))
    judge = open_encoder(spec)
    if used and judge.name == own:
        raise TrainingError(f"'{own}' is used in training; --eval-encoder must be another face encoder.")
    return judge


class BestWeights:
    """Validates, and keeps weights with a higher similarity than all before them, also those of the start.

    They are kept by their update (`best/150`), so that a run that is resumed from an earlier checkpoint still finds
    the best ones up to there.

    Args:
        step: The trained parts; validated with their average in them.
        validate: Draws and measures.
        metrics: `metrics.jsonl` of the run: a resumed run knows the best checkpoint so far.
        metric: The similarity.

    Attributes:
        before: The similarity before the first update.
    """

    def __init__(
        self, step: TrainingStep, validate: Callable[[int], dict[str, float]], metrics: Path, metric: str
    ) -> None:
        self.step, self.validate, self.metrics, self.metric = step, validate, metrics, metric
        self.before = -1.0

    def start(self) -> None:
        """Validate the weights of the start. A run that is resumed has kept better ones, or these."""
        self.before = self.validate(0)[self.metric]
        if not list_checkpoints(self.metrics.parent):
            self.step.save(self.folder(0))

    def folder(self, update: int) -> Path:
        """Where the weights after an update are kept."""
        return self.metrics.parent / BEST / str(update)

    def best(self) -> tuple[int, float]:
        """Update and similarity of the best weights."""
        return max(self.found(), key=lambda pair: pair[1])

    def found(self) -> list[tuple[int, float]]:
        """Updates and similarities so far, the start first."""
        return [(0, self.before), *series(self.metrics, self.metric)]

    def __call__(self, update: int) -> dict[str, float]:
        """Validate the weights after an update."""
        found = self.validate(update)
        if found[self.metric] > self.best()[1]:
            self.step.save(self.folder(update))
        return found


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Stops a run whose similarity has not risen for some checkpoints.

    Attributes:
        best: Knows the similarities so far.
        patience: Checkpoints in a row that are no better than the best one; 0 to never stop.
    """

    best: BestWeights
    patience: int

    def __call__(self, _: Path) -> bool:
        """Whether to stop."""
        values = [value for _, value in self.best.found()]
        return 0 < self.patience <= len(values) - 1 - values.index(max(values))


def series(metrics: Path, metric: str) -> list[tuple[int, float]]:
    """Updates and values of a metric."""
    return [(row["step"], row[metric]) for row in read_rows(metrics) if row.get(metric) is not None]


def metric_of(judge: FaceEncoder) -> str:
    """The name of the similarity by a face encoder."""
    return f"{SIMILARITY}{judge.name}"
