"""`idgen evaluate`: options → drawings, measurements and a report."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import EvaluationError
from ..terminal import say, warn, working
from ..tiny.usage import usage_of
from .cases import Case, adapter_of, enroll_cases, load_cases, together, write_multiid
from .compare import as_text as compared_as_text
from .compare import compare
from .drawer import draw
from .drawing import DrawingSettings, plan, read_settings, without_identity
from .found_once import FoundOnce
from .groups import with_groups
from .judges import encoder_roles, open_judges, read_real
from .launched import device_of_process, processes
from .measure import Shot, measure
from .opener import PipelineOpener
from .options import EvaluateOptions
from .prompts import load_prompts
from .report import write_report
from .summary import as_text


def evaluate(options: EvaluateOptions, open_pipeline: Callable[..., Any]) -> Path | None:
    """Draw, measure and report, or compare two reports.

    Args:
        options: Options of the command line.
        open_pipeline: `(base, adapter, weight_name, device, lora=…)` → a pipeline with an adapter.

    Returns:
        The page that was written; None in all but the main process.

    Raises:
        EvaluationError, NoFaceError, CheckpointError: The input cannot be used. Nothing has been drawn then.
    """
    state = processes()
    if options.compare is not None:
        for line in compared_as_text(compare(*options.compare, options.output)):
            say(line)
        return options.output / "index.html"
    if options.identities is None:
        raise EvaluationError("--identities is required, or --compare with two reports.")
    cases = _cases(options, options.identities)
    opener, conditioning = None, None
    if not options.drawn:
        source = options.base, options.id_adapter, options.weight_name, device_of_process(options.device)
        opener = PipelineOpener(partial(open_pipeline, *source, lora=options.lora), options.encoder)
        conditioning = adapter_of(opener.pipeline).config["encoder"]
    judges = open_judges(
        conditioning,
        eval_encoder=options.eval_encoder,
        detector=options.detector,
        clip=options.clip,
        classifier=options.classifier,
        features=options.features,
    )
    finder = FoundOnce(judges.detector)
    real = read_real(cases, replace(judges, detector=finder))  # before hours of drawing
    cases = with_groups(cases, finder, options.group_classifier)
    shots = _drawn_elsewhere(cases) if opener is None else _draw_shots(opener, cases, options)
    if not state.is_main_process:
        return None
    with working(f"Measuring {len(shots)} pictures …"):
        measured = measure(shots, judges, real)
        roles = encoder_roles(list(judges.encoders), conditioning, options.trained_with)
        summary = write_report(options.output, _about(options, cases, shots), roles, measured, shots)
    for line in as_text(summary):
        say(line)
    return options.output / "index.html"


def _draw_shots(opener: PipelineOpener, cases: Sequence[Case], options: EvaluateOptions) -> list[Shot]:
    """Draw every case, and every prompt and seed without an identity."""
    folder = options.output / "pictures"
    width, height = _size(options)
    settings = DrawingSettings(
        base=options.base,
        adapter=options.id_adapter or options.base,
        id_scale=options.id_scale,
        steps=_steps(options),
        guidance_scale=_guidance_scale(options),
        width=width,
        height=height,
        masks="none" if options.masks == "none" else None,
        lora=options.lora,
    )
    prompts = load_prompts(options.prompts) if options.prompts else ()
    drawings = plan(cases, prompts, range(options.seed, options.seed + options.count))
    references = without_identity(drawings)
    people = enroll_cases(opener.pipeline, cases)
    every = [*drawings, *references.values()]
    with options.engine.open() as engine:
        draw(opener, every, people, settings, folder, batch_size=options.batch_size, engine=engine)
    by_name = {case.name: case for case in cases}
    shots = [
        Shot(
            case=by_name[drawing.person],
            file=folder / f"{drawing.path}.png",
            prompt=drawing.prompt,
            label=drawing.label,
            seed=drawing.seed,
            without=folder / f"{references[drawing.prompt, drawing.seed].path}.png",
            seconds=read_settings(folder, drawing)["seconds"],
        )
        for drawing in drawings
    ]
    if options.write_multiid:
        for shot in shots:
            write_multiid(options.output / "multiid" / shot.file.stem, shot.case, shot.file, shot.prompt)
    return shots


def _cases(options: EvaluateOptions, identities: Path) -> list[Case]:
    """The people of each picture."""
    if options.people > 1 and (options.drawn or options.by_timestep):
        raise EvaluationError(
            "--people combines people in new pictures. It cannot be used with --drawn or --by-timestep."
        )
    single = load_cases(identities)
    cases = together(single, options.people)
    if left := single[len(cases) * options.people :]:
        warn(f"Skipped, since each picture needs {options.people} people: {', '.join(case.name for case in left)}.")
    return cases


def _size(options: EvaluateOptions) -> tuple[int | None, int | None]:
    """Width and height of pictures of several people by a model that draws one face at one size: as many faces wide.
    None for the base model's."""
    side = usage_of(options.base).resolution
    return (None, None) if side is None or options.people == 1 else (side * options.people, side)


def _drawn_elsewhere(cases: Sequence[Case]) -> list[Shot]:
    if missing := [case.name for case in cases if case.output is None]:
        raise EvaluationError(f"--drawn measures existing pictures; out.jpg is missing for {', '.join(missing[:5])}.")
    return [Shot(case=case, file=case.output, prompt=case.prompt or "") for case in cases if case.output]


def _steps(options: EvaluateOptions) -> int:
    return usage_of(options.base, options.lora).num_inference_steps if options.steps is None else options.steps


def _guidance_scale(options: EvaluateOptions) -> float:
    usage = usage_of(options.base, options.lora)
    return usage.guidance_scale if options.guidance_scale is None else options.guidance_scale


def _about(options: EvaluateOptions, cases: Sequence[Case], shots: Sequence[Shot]) -> dict[str, str | float]:
    """The head of the report."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    memory = f"{kilobytes / 1024:.0f} MiB of main memory"
    if torch.cuda.is_available():
        memory += f", {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB of GPU memory"
    drawn: dict[str, str | float] = {
        "base": options.base,
        "adapter": options.id_adapter or options.base,  # the small model brings its own
        "identity scale": options.id_scale,
        "steps": _steps(options),
        "guidance scale": _guidance_scale(options),
        "prompts": options.prompts or "each person's own",
    }
    if options.people > 1:
        drawn |= {"people in a picture": options.people, "masks": options.masks}
    if options.lora is not None:
        drawn["LoRA"] = options.lora
    told = {} if options.drawn else drawn
    return {
        **told,
        "people": sum(len(case.members) or 1 for case in cases),
        "pictures": len(shots),
        "peak memory of this process": memory,
    }
