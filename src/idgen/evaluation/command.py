"""`idgen evaluate`: options → drawings, measurements and a report."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import EvaluationError
from ..faces.registry import EncoderSpec, register_encoder
from ..terminal import say, working
from .cases import Case, adapter_of, enroll_cases, load_cases, write_multiid
from .compare import compare
from .drawing import DrawingSettings, draw, plan, processes, read_settings, without_identity
from .judges import encoder_roles, open_judges, read_real
from .measure import Shot, measure
from .prompts import load_prompts
from .report import write_report
from .summary import as_text


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Options of `idgen evaluate`.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model that comes with the package.
        id_adapter: Identity adapter for this base: a folder, a file or a hub id.
        weight_name: File of the adapter, if its folder or repository holds several.
        encoder: Face encoder that the adapter reads; needed only if it is a file or code of your own.
        identities: People: a folder with one folder of photos per person (the first photo is the reference, the second
            the target), a .csv (person, reference, target, prompt, group, noun), or a folder in MultiID-Bench's
            layout.
        prompts: Prompt set (fastcomposer, pulid-portrait or tiny) or text file; the default is each person's own
            prompt.
        output: Folder of pictures and report. An interrupted run continues there when it is started again.
        seeds: Pictures per person and prompt.
        seed: First seed.
        id_scale: Strength of the identity conditioning; 0 turns it off.
        steps: Denoising steps.
        guidance_scale: Scale of classifier-free guidance.
        batch_size: Pictures drawn at once.
        eval_encoder: Face encoders to measure with, besides the adapter's own; docs/encoders.md describes them. The
            default is one that the adapter does not read.
        trained_with: Encoders that the adapter's losses or rewards used. They are reported, but never as the headline.
        detector: YuNet file; replaces dlib's face detector.
        clip: CLIP model for CLIP-T and CLIP-I: a folder or a hub id.
        classifier: ONNX classifier of the prompts' labels; measures prompt fidelity instead of CLIP-T.
        features: ONNX feature network for the Fréchet distance between results and real photos.
        drawn: Measure the `out.jpg` files in MultiID-Bench's layout instead of drawing.
        write_multiid: Also write the results in MultiID-Bench's layout.
        compare: Compare two folders of reports instead of drawing.
        by_timestep: Instead of drawing, predict the people's target photos at each timestep, measure what the
            predictions show of them, and propose windows for losses. It reads the first of the prompts.
        device: Device to compute on; the default is a GPU if there is one.
    """

    base: str = "tiny"
    id_adapter: str | None = None
    weight_name: str | None = None
    encoder: EncoderSpec | None = None
    identities: Path | None = None
    prompts: str | None = None
    output: Path = Path("report")
    seeds: int = 1
    seed: int = 0
    id_scale: float = 0.8
    steps: int = 25
    guidance_scale: float = 5.0
    batch_size: int = 1
    eval_encoder: tuple[EncoderSpec, ...] = ()
    trained_with: tuple[str, ...] = ()
    detector: Path | None = None
    clip: str | None = None
    classifier: Path | None = None
    features: Path | None = None
    drawn: bool = False
    write_multiid: bool = False
    compare: tuple[Path, Path] | None = None
    by_timestep: bool = False
    device: str | None = None


def evaluate(options: EvaluateOptions, open_pipeline: Callable[..., Any]) -> Path | None:
    """Draw, measure and report, or compare two reports.

    Args:
        options: Options of the command line.
        open_pipeline: `(base, adapter, weight_name, device)` → a pipeline with an adapter.

    Returns:
        The page that was written; None in all but the main process.

    Raises:
        EvaluationError, NoFaceError, CheckpointError: The input cannot be used. Nothing has been drawn then.
    """
    state = processes()
    if options.compare is not None:
        compare(*options.compare, options.output)
        return options.output / "index.html"
    if options.identities is None:
        raise EvaluationError("--identities is required, or --compare with two reports.")
    cases = load_cases(options.identities)
    pipeline, conditioning = None, None
    if not options.drawn:
        if options.encoder is not None:
            register_encoder(options.encoder)
        device = options.device or (str(state.device) if state.num_processes > 1 else None)
        pipeline = open_pipeline(options.base, options.id_adapter, options.weight_name, device)
        conditioning = adapter_of(pipeline).config["encoder"]
    judges = open_judges(
        conditioning,
        eval_encoder=options.eval_encoder,
        detector=options.detector,
        clip=options.clip,
        classifier=options.classifier,
        features=options.features,
    )
    real = read_real(cases, judges)  # before hours of drawing
    shots = _drawn_elsewhere(cases) if pipeline is None else _draw_shots(pipeline, cases, options)
    if not state.is_main_process:
        return None
    with working(f"Measuring {len(shots)} pictures …"):
        measured = measure(shots, judges, real)
        roles = encoder_roles(list(judges.encoders), conditioning, options.trained_with)
        summary = write_report(options.output, _about(options, cases, shots), roles, measured, shots)
    for line in as_text(summary):
        say(line)
    return options.output / "index.html"


def _draw_shots(pipeline: Any, cases: Sequence[Case], options: EvaluateOptions) -> list[Shot]:
    """Draw every case, and every prompt and seed without an identity."""
    folder = options.output / "pictures"
    settings = DrawingSettings(
        base=options.base,
        adapter=options.id_adapter or options.base,
        id_scale=options.id_scale,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )
    prompts = load_prompts(options.prompts) if options.prompts else ()
    drawings = plan(cases, prompts, range(options.seed, options.seed + options.seeds))
    references = without_identity(drawings)
    people = enroll_cases(pipeline, cases)
    draw(pipeline, [*drawings, *references], people, settings, folder, batch_size=options.batch_size)
    by_name = {case.name: case for case in cases}
    without = {(one.prompt, one.seed): folder / f"{one.path}.png" for one in references}
    shots = [
        Shot(
            case=by_name[drawing.person],
            file=folder / f"{drawing.path}.png",
            prompt=drawing.prompt,
            label=drawing.label,
            seed=drawing.seed,
            without=without[drawing.prompt, drawing.seed],
            seconds=read_settings(folder, drawing)["seconds"],
        )
        for drawing in drawings
    ]
    if options.write_multiid:
        for shot in shots:
            write_multiid(options.output / "multiid" / shot.file.stem, shot.case, shot.file, shot.prompt)
    return shots


def _drawn_elsewhere(cases: Sequence[Case]) -> list[Shot]:
    if missing := [case.name for case in cases if case.output is None]:
        raise EvaluationError(f"--drawn measures existing pictures; out.jpg is missing for {', '.join(missing[:5])}.")
    return [Shot(case=case, file=case.output, prompt=case.prompt or "") for case in cases if case.output]


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
        "steps": options.steps,
        "guidance scale": options.guidance_scale,
        "prompts": options.prompts or "each person's own",
    }
    told = {} if options.drawn else drawn
    return {**told, "people": len(cases), "pictures": len(shots), "peak memory of this process": memory}
