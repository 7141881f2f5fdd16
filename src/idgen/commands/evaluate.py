"""`idgen evaluate`: measurements of an adapter, or a comparison of two."""

from __future__ import annotations

from typing import Annotated

import tyro

from ..errors import EvaluationError
from ..evaluation.options import EvaluateOptions
from ..evaluation.prompts import load_prompts
from ..terminal import show
from .shared import check_adapter, open_pipeline


def run(options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]) -> None:
    """Measure an adapter on people and prompts, or compare two reports. docs/evaluation.md explains the figures.

    idgen evaluate --base tiny --identities people/ --prompts tiny --output report/

    idgen evaluate --compare report-a/ report-b/ --output comparison/

    idgen evaluate --by-timestep --identities people/ --output timesteps/
    """
    if options.compare is None:
        if options.identities is None:
            raise EvaluationError("--identities is required, or --compare with two reports.")
        if not options.drawn:
            check_adapter(options.base, options.id_adapter)
        if options.prompts is not None:
            load_prompts(options.prompts)
    if options.by_timestep:
        from ..training.timesteps import evaluate_by_timestep

        for line in evaluate_by_timestep(options, open_pipeline):
            show(line)
        return
    from ..evaluation.command import evaluate

    page = evaluate(options, open_pipeline)
    if page is not None:
        show(page)
