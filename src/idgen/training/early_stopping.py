"""Early stopping, when only one face encoder sees an improvement."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from ..rewards import RewardHackingGuard, Verdict
from .tracking import read_rows

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stops a run in which the similarity by one face encoder rises while that by another one falls.

    Attributes:
        trained: Metric of the encoder that the losses or rewards use.
        unseen: Metric of the encoder that the training never uses.
        rule: Decides from the two series.
    """

    trained: str
    unseen: str
    rule: RewardHackingGuard

    def __call__(self, metrics: Path) -> bool:
        """Whether to stop the run, given its `metrics.jsonl`; logs a warning with the reason."""
        pairs: dict[int, tuple[float, float]] = {}
        for row in read_rows(metrics):
            trained, unseen = row.get(self.trained), row.get(self.unseen)
            if trained is not None and unseen is not None:  # the second encoder may have been added on resume
                pairs[row["step"]] = (trained, unseen)
        verdict = self.rule(*([pairs[step][i] for step in sorted(pairs)] for i in range(2)))
        if verdict is not Verdict.CONTINUE:
            _log.warning(
                "%s rises while %s falls: the pictures improve for one face encoder only.%s",
                self.trained,
                self.unseen,
                " The run stops here; an earlier checkpoint is better." if verdict is Verdict.STOP else "",
            )
        return verdict is Verdict.STOP
