"""People and photos for a budget: clusters near a target set, then pruning.

Search and pruning (SnP; Yao et al., CVPR 2023): clusters of the source are taken as often as the target has faces in
them, and of each person those photos that differ most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .bank import IdentityBank
from .clustering import person_sums, unit
from .manifest import Manifest

PEOPLE_PER_CLUSTER, MOST_CLUSTERS, ROUNDS = 50, 200, 20
MOST_PHOTOS = 16
"""Photos of a person that are chosen at most."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The number of faces to choose, and the criterion.

    Attributes:
        faces: Number of faces.
        like: Folder or URL of a prepared set of the same encoder; people are chosen as its training split has them.
            Without it, all clusters of people get the same share.
        seed: Seed of the clusters and of the order of people.

    Raises:
        DataError: `faces` is not positive.
    """

    faces: int
    like: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.faces < 1:
            raise DataError(f"A budget must be at least one face, got {self.faces}.")

    def target(self, encoder: str) -> np.ndarray | None:
        """(faces, dim), unit length: the faces of `like`; raises DataError if it is of another encoder."""
        if self.like is None:
            return None
        if (other := Manifest.open(self.like).encoder) != encoder:
            raise DataError(f"'{self.like}' was prepared with '{other}', not with '{encoder}'.")
        return unit(np.asarray(IdentityBank(self.like).embeddings))


def choose(units: np.ndarray, labels: np.ndarray, budget: Budget, target: np.ndarray | None = None) -> np.ndarray:
    """Choose faces of people for a budget. The result is the same each time.

    Args:
        units: (n, dim), unit length.
        labels: (n,), numbers of people; negative for faces that are not considered.
        budget: How many.
        target: (m, dim), unit length; see `Budget.target`.

    Returns:
        (n,), booleans. At most `budget.faces` are true, fewer only if there are no more within `MOST_PHOTOS` a person.
    """
    random = np.random.default_rng(budget.seed)
    named = np.argsort(labels, kind="stable")
    named = named[labels[named] >= 0]
    people, starts = np.unique(labels[named], return_index=True)
    photos = dict(zip(people.tolist(), np.split(named, starts[1:]), strict=True))
    centres = unit(person_sums(units, labels)[people])
    centroids = _clusters(centres, random)
    own = (centres @ centroids.T).argmax(1)
    wanted = np.ones(len(centroids))
    if target is not None:
        wanted = np.bincount((target @ centroids.T).argmax(1), minlength=len(centroids)).astype(float)
    queues = [random.permutation(people[own == cluster]).tolist() for cluster in range(len(centroids))]
    chosen, taken = np.zeros(len(units), bool), np.zeros(len(centroids))
    left = budget.faces
    while left > 0:
        # the cluster that lags most behind its share; those that the target lacks come last
        open_ones = [cluster for cluster, queue in enumerate(queues) if queue]
        if not open_ones:
            break
        cluster = min(open_ones, key=lambda i: ((taken[i] + 1) / wanted[i] if wanted[i] else np.inf, taken[i]))
        person = queues[cluster].pop()
        rows = photos[person][_most_different(units[photos[person]])[:left]]
        chosen[rows] = True
        taken[cluster] += len(rows)
        left -= len(rows)
    return chosen


def _most_different(units: np.ndarray) -> np.ndarray:
    """The order in which photos of a person are taken: the most typical one, then always the one that is least like
    any taken one (k-center; Gonzalez 1985)."""
    first = int((units @ units.sum(0)).argmax())
    order, nearest = [first], units @ units[first]
    while len(order) < min(len(units), MOST_PHOTOS):
        nearest[order] = np.inf
        order.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, units @ units[order[-1]])
    return np.array(order)


def _clusters(centres: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Centroids, (clusters, dim) of unit length, by spherical k-means (Dhillon and Modha 2001)."""
    count = min(MOST_CLUSTERS, len(centres) // PEOPLE_PER_CLUSTER + 1)
    centroids = centres[random.choice(len(centres), count, replace=False)]
    for _ in range(ROUNDS):
        own = (centres @ centroids.T).argmax(1)
        sums = np.zeros_like(centroids)
        np.add.at(sums, own, centres)
        centroids = np.where(np.bincount(own, minlength=count)[:, None] > 0, unit(sums), centroids)
    return centroids
