"""Ends a run that pleases the encoder it is trained on and not the one it never sees."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ..rewards import RewardHackingGuard, Verdict
from .metrics import read_rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HackingGuard:
    """`RewardHackingGuard` on the validation metrics of a run.

    Attributes:
        trained: Metric of the encoder that the loss or reward uses.
        unseen: Metric of the one that the training never sees.
        rule: When the two part.
    """

    trained: str
    unseen: str
    rule: RewardHackingGuard

    def __call__(self, metrics: Path) -> bool:
        """Whether the run shall end, by its `metrics.jsonl`; says why."""
        pairs: dict[int, tuple[float, float]] = {}
        for row in read_rows(metrics):
            trained, unseen = row.get(self.trained), row.get(self.unseen)
            if trained is not None and unseen is not None:  # a judge may have come later
                pairs[row["step"]] = (trained, unseen)
        verdict = self.rule(*([pairs[step][i] for step in sorted(pairs)] for i in range(2)))
        if verdict is not Verdict.CONTINUE:
            _log.warning(
                "%s rises while %s falls: the faces please one encoder and not another.%s",
                self.trained,
                self.unseen,
                " The run ends here; an earlier checkpoint is the better one." if verdict is Verdict.STOP else "",
            )
        return verdict is Verdict.STOP
