"""`Comparison`: one person at several scales, by several adapters, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import pandas as pd

from ..errors import DemoError
from .functions import Captioned, Functions
from .likeness import caption
from .sessions import Session
from .settings import Settings
from .studio import Step

MAX_CELLS = 12

Compared: TypeAlias = "tuple[Captioned, pd.DataFrame]"

COLUMNS = ["scale", "cosine", "curve", "adapter", "encoder"]


class Comparison:
    """What the tab that compares can ask for.

    Args:
        functions: That know people, draw and judge.
    """

    def __init__(self, functions: Functions) -> None:
        self.functions = functions

    def compare(
        self, person: str, scales: str, adapters: Sequence[str], settings: Settings, session: Session, step: Step
    ) -> Compared:
        """Draw a person from the same noise at each of the scales ("0, 0.5, 1") by each of the adapters."""
        who = session.person(person)
        columns, rows_of = parsed_scales(scales), list(dict.fromkeys(adapters[:MAX_CELLS]))
        if not 0 < len(columns) * len(rows_of) <= MAX_CELLS:
            raise DemoError(f"{len(columns) * len(rows_of)} pictures cannot be compared: choose up to {MAX_CELLS}.")
        cells = [replace(settings, adapter=a, scale=s, count=1) for a in rows_of for s in columns]
        shown, rows = [], []
        with session.running() as stop:
            for i, cell in enumerate(cells):

                def after_step(done: int, total: int, before: int = i) -> None:
                    step(before * total + done, len(cells) * total)

                [picture] = self.functions.studio.draw("text", cell, [who], stop, after_step)
                file, scores = self.functions.judge(i + 1, picture, cell, [[who]], session)
                by = f"{cell.adapter}, " if len(adapters) > 1 else ""
                shown.append((file, caption(scores, f"{by}scale {cell.scale:g}")))
                rows += [(cell.scale, s.cosine, by + s.encoder, cell.adapter, s.encoder) for s in scores]
        return shown, pd.DataFrame(rows, columns=COLUMNS)


def parsed_scales(text: str) -> list[float]:
    """ "0, 0.5, 1" → numbers, each once; raises DemoError."""
    if text.count(",") >= MAX_CELLS:
        raise DemoError(f"{text.count(',') + 1} scales cannot be compared: choose up to {MAX_CELLS}.")
    try:
        return list(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise DemoError(f"Scales are numbers with commas between them, not '{text[:80]}'.") from error
