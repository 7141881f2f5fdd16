"""`forget`: an adapter that no longer makes the tokens of given people.

The projection is trained so that embeddings of a person, and all that are as near as another photo of them, have the
tokens and pseudo-words of an anchor, while those of other people stay as they are:

- Only photos or identities of the people are needed, no labels and no training set (label-agnostic forgetting). The
  people to keep are drawn from the encoder's space (data-free, as in score forgetting distillation).
- Half of them resemble a forgotten person without being taken for them, against over-forgetting.
- A search finds embeddings near the person that still have the person's tokens, and they are trained on too
  (AdvUnlearn, arXiv 2405.15234). Each search continues over several training steps and costs one gradient in each
  ("Adversarial Training for Free!", arXiv 1904.12843).
- Where both gradients disagree, that of forgetting loses its part against keeping (DoCo's gradient surgery).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import torch
from tqdm import tqdm

from ...adapter import IdentityAdapter
from ...identity import Identity
from .people import Forgotten, Kept, match_threshold
from .rows import Rows
from .settings import ForgettingSettings
from .surgery import combined
from .token_space import TokenSpace

PEOPLE = 4
"""People who are forgotten in one step; others take their turn."""
NEAR, FOUND, KEPT = 16, 16, 64
"""Inputs of a step: random ones near each person, as many that a search finds, and people to keep."""
STARTED = 2
"""Searches that begin at each step. The oldest ones end, after `FOUND / STARTED` steps."""
ATTACK_STEPS = 10
"""Steps of the search that measures what is left."""
KEEP_WEIGHT = 1.0
PERCEPTRON_RATE, ATTENTION_RATE = 5e-3, 1e-3
"""Learning rates: pseudo-words and "mlp" projections need the higher one to forget in few steps."""
POPULATION = 256
"""Random people who show how much tokens differ between people."""


class TokenForgetting:
    """What is forgotten in token space: people, the people to keep, and the anchor of each person.

    Args:
        adapter: The adapter before it forgets; it is not changed.
        people: People to forget.
        settings: Settings.
        keep: People to keep, beside those that are drawn.
    """

    def __init__(
        self,
        adapter: IdentityAdapter,
        people: Sequence[Identity],
        settings: ForgettingSettings,
        keep: Sequence[Identity] = (),
    ) -> None:
        self.original = copy.deepcopy(adapter).float().eval().requires_grad_(False)
        self.threshold = match_threshold(adapter.config["encoder"], settings.threshold)
        reach = (2 - 2 * self.threshold) ** 0.5
        self.people = [Forgotten(Rows.of(self.original, person), reach) for person in people]
        self.random = torch.Generator().manual_seed(settings.seed)
        self.kept = Kept.of(self.original, keep)
        self.population = self.kept.draw(POPULATION, self.random)
        self.space = TokenSpace.of(self.original, self.population)
        self.anchors = list(self._choose_anchors(settings.anchor))
        with torch.no_grad():
            self.anchor_vectors = [self.space.read(self.original, anchor)[0] for anchor in self.anchors]
            self.own_vectors = [self.space.read(self.original, person.mean)[0] for person in self.people]
        self._found = [person.draw(FOUND, self.kept, self.random) for person in self.people]

    def loss(self, adapter: IdentityAdapter, whom: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean squared distances: of forgotten inputs to their anchors, and of kept ones to the original vectors."""
        forgotten, anchors, kept = [], [], [self.kept.draw(KEPT // 2, self.random)]
        for i in whom:
            person = self.people[i]
            forgotten += [person.draw(NEAR, self.kept, self.random), self.search(adapter, i), person.rows]
            anchors.append(self.anchor_vectors[i].expand(NEAR + FOUND + len(person.rows), -1))
            kept.append(self.kept.lookalikes(person.mean, self.threshold, KEPT // 2 // len(whom), self.random))
        inputs, others = Rows.cat(forgotten), self.outside(Rows.cat(kept))
        forget = (self.space.read(adapter, inputs) - torch.cat(anchors)).square().sum(-1).mean()
        if not len(others):
            return forget, forget.new_zeros(())
        with torch.no_grad():
            before = self.space.read(self.original, others)
        keep = (self.space.read(adapter, others) - before).square().sum(-1).mean()
        return forget, KEEP_WEIGHT * keep

    def search(self, adapter: IdentityAdapter, whom: int) -> Rows:
        """Inputs near a person whose vectors are near the person's own: one more step of each search.

        The searches that have gone on for longest come last.
        """
        person = self.people[whom]
        start = Rows.cat([person.draw(STARTED, self.kept, self.random), self._found[whom][:-STARTED]])
        found = self.space.search(adapter, start, person.mean, self.own_vectors[whom], person.reach, 1)
        self._found[whom] = found
        return found

    def outside(self, rows: Rows) -> Rows:
        """The rows that are not taken for any forgotten person."""
        cosines = torch.stack([rows.directions @ person.mean.directions[0] for person in self.people])
        return rows[cosines.amax(0) <= self.threshold + 1e-6]

    @torch.no_grad()
    def remaining(self, adapter: IdentityAdapter) -> float:
        """How near a search comes to the tokens of a forgotten person, for the person to whom it comes nearest.

        Returns:
            1 - squared distance / that of random people: 1 for the person's own tokens, 0 for those of a stranger.
        """
        left = []
        for person, own in zip(self.people, self.own_vectors, strict=True):
            start = Rows.cat([person.rows, person.draw(FOUND, self.kept, self.random)])
            with torch.enable_grad():
                found = self.space.search(adapter, start, person.mean, own, person.reach, ATTACK_STEPS)
            nearest = (self.space.read(adapter, found) - own).square().sum(-1).min()
            strangers = (self.space.read(self.original, self.population) - own).square().sum(-1).mean()
            left.append(float(1 - nearest / strangers))
        return max(left)

    def _choose_anchors(self, anchor: str) -> Iterator[Rows]:
        """For each person the input whose tokens take the place of theirs, one row."""
        for i, person in enumerate(self.people):
            if anchor == "nobody":
                yield self.population.mean()
            else:
                cosine = self.population.directions @ person.mean.directions[0]
                strangers = cosine.argsort()[: len(cosine) // 2]  # nobody who looks like the person
                yield self.population[strangers[i % len(strangers)]][None]


def forget(
    adapter: IdentityAdapter,
    people: Sequence[Identity],
    settings: ForgettingSettings | None = None,
    *,
    keep: Sequence[Identity] = (),
    progress: bool = False,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> IdentityAdapter:
    """Make an adapter that draws somebody else in place of given people, in seconds, without photos of others.

    Args:
        adapter: Any adapter; it is not changed.
        people: People to forget. With nobody, or with `steps=0`, the result is the same bit for bit.
        settings: Settings.
        keep: Other people who are to stay as they are. Adapters that read image features need at least two.
        progress: Show a progress bar.
        on_step: Called after each step with the number of finished steps and of all steps.

    Returns:
        A new adapter, attached to no UNet.

    Raises:
        EncoderMismatchError: An identity is of another face encoder than the adapter reads.
        IdentityError: An identity lacks the image features that the adapter reads.
        ProvenanceError: It is not known which embeddings show the person (see `ForgettingSettings.threshold`), or the
            adapter reads image features and there are no people to keep.
    """
    settings = settings or ForgettingSettings()
    result = copy.deepcopy(adapter)
    if not people:
        return result
    task = TokenForgetting(result, people, settings, keep)
    if not settings.steps:
        return result
    trained = _trained(task, settings, progress, on_step)
    with torch.no_grad():
        for old, new in zip(result.parameters(), trained.parameters(), strict=True):
            old.copy_(new)
    return result


def _trained(
    task: TokenForgetting, settings: ForgettingSettings, progress: bool, on_step: Callable[[int, int], None]
) -> IdentityAdapter:
    """A copy of the original adapter, in float32, whose projection was trained to forget."""
    trained = copy.deepcopy(task.original)
    perceptron = trained.config["projection"]["type"] == "mlp"
    parts = (trained.to_tokens, PERCEPTRON_RATE if perceptron else ATTENTION_RATE), (trained.to_words, PERCEPTRON_RATE)
    optimizer = torch.optim.Adam(
        [
            {"params": list(part.requires_grad_().parameters()), "rate": settings.learning_rate or rate}
            for part, rate in parts
        ]
    )
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    at_once = min(PEOPLE, len(task.people))
    for step in tqdm(range(settings.steps), "Forgetting", disable=not progress):
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * (1 - step / settings.steps)
        whom = [i % len(task.people) for i in range(step * PEOPLE, step * PEOPLE + at_once)]
        combined(*task.loss(trained, whom), weights)  # pyright: ignore[reportArgumentType]
        optimizer.step()
        on_step(step + 1, settings.steps)
    return trained
