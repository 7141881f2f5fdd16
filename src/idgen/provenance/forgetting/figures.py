"""Figures of a report: similarities of pictures to their people, and the likeness that is left."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...evaluation.intervals import Interval, interval, mean_interval
from ...evaluation.judges import Embeddings
from .rows import Rows


class Group(NamedTuple):
    """People of a report.

    Attributes:
        references: Encoder → (people, dim), what pictures are compared with.
        rows: What is drawn.
        persons: (rows,), the person of each row.
    """

    references: Embeddings
    rows: Rows
    persons: np.ndarray


class Line(NamedTuple):
    """Similarity of one kind of pictures to their people, by one encoder.

    Attributes:
        name: What is drawn.
        encoder: Name of the encoder.
        before: Mean cosine of the pictures by the adapter before it forgot.
        after: The same afterwards.
        strangers: Mean cosine of the pictures before to the other people of the report.
        left: (after - strangers) / (before - strangers): 1 if nothing was forgotten, 0 if pictures are like those of a
            stranger.
        found: Share of the pictures after in which a face was found.
    """

    name: str
    encoder: str
    before: Interval
    after: Interval
    strangers: float
    left: Interval
    found: float


def line_of(name: str, encoder: str, group: Group, before: np.ndarray, after: np.ndarray, known: np.ndarray) -> Line:
    """Compare pictures with their people.

    Args:
        name: What is drawn.
        encoder: Name of the encoder.
        group: The people.
        before: (pictures, dim), faces in the pictures by the adapter before it forgot.
        after: The same afterwards.
        known: (people, dim), references of all people of the report, for the similarity to strangers.
    """
    own = group.references[encoder][group.persons]
    same = np.isclose(known @ own.T, 1).T  # (pictures, known people)
    apart = np.where(same, np.nan, before @ known.T)
    strangers = float(np.nanmean(apart))
    values = [np.nan_to_num((faces * own).sum(-1), nan=strangers) for faces in (before, after)]
    several = len(np.unique(group.persons)) > 1
    persons = group.persons if several else np.arange(len(group.persons))
    _, index = np.unique(persons, return_inverse=True)
    sums = [np.bincount(index, value - strangers) for value in values]

    def left(weights: np.ndarray) -> float:
        likeness = float(weights @ sums[0])
        return float(weights @ sums[1]) / likeness if likeness > 0 else float("nan")

    found = float((~np.isnan(after).any(-1)).mean())
    was, now = (mean_interval(value, persons) for value in values)
    return Line(name, encoder, was, now, strangers, interval(left, len(sums[0])), found)
