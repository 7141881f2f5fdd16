"""Ends a run that pleases the encoder it is trained on and not the one it never sees."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from ..rewards import RewardHackingGuard, Verdict

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
        rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        pairs = {row["step"]: (row[self.trained], row[self.unseen]) for row in rows if self.trained in row}
        trained, unseen = ([pairs[step][i] for step in sorted(pairs)] for i in range(2))
        verdict = self.rule(trained, unseen)
        if verdict is not Verdict.CONTINUE:
            _log.warning(
                "%s rises while %s falls: the faces please one encoder and not another.%s",
                self.trained,
                self.unseen,
                " The run ends here; an earlier checkpoint is the better one." if verdict is Verdict.STOP else "",
            )
        return verdict is Verdict.STOP
