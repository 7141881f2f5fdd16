"""`idgen evaluate` and `idgen generate --table`: options → the rooms of this folder."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from ..errors import EvaluationError
from ..faces import DlibDetector, DlibEncoder
from ..identity import Identity
from ..terminal import console, working
from .cases import Case, load_cases, write_multiid
from .crowd import random_people
from .engine import Drawing, Settings, draw, plan, png, processes, read_settings, without_identity
from .judges import Judges, read_real
from .measure import Measured, Shot, measure
from .prompts import load_prompts
from .report import write_report
from .summary import Scores, check_titles, summarise

SFACE = "sface:opencv/face_recognition_sface"


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What `idgen evaluate` is told.

    Attributes:
        base: Stable Diffusion model: a folder, a hub id, or "tiny".
        id_adapter: Identity adapter for this base.
        weight_name: Its file, where the folder or repository holds several.
        identities: People: a folder with one of photos for each (the first is the reference, the second the target), a
            .csv (person, reference, target, prompt, group, noun), or a folder in MultiID-Bench's layout.
        prompts: fastcomposer, pulid-portrait, tiny, or a text file; without it each case's own prompt.
        output: Folder of pictures and report. Started again, an interrupted run goes on there.
        seeds: Pictures for each person and prompt.
        seed: The first one.
        id_scale: Strength of the identity conditioning; 0 turns it off.
        steps: Denoising steps.
        guidance_scale: How closely the prompt is followed.
        batch_size: Pictures drawn at once.
        eval_encoder: Face encoders to judge with, beside the adapter's own: "dlib-resnet-v1", "insightface/PACK",
            "sface:FILE", "arcface:FILE.onnx" or "imagenet:FILE.onnx". By default one that the adapter does not read.
        trained_with: Encoders that the adapter's losses or rewards used; they are shown and never the headline.
        detector: YuNet file to find faces with, instead of dlib's detector.
        clip: CLIP model, folder or hub id, for CLIP-T and CLIP-I.
        classifier: ONNX classifier of the prompts' labels, for prompt fidelity instead of CLIP-T.
        features: ONNX feature network for Fréchet distance between results and real photos.
        drawn: Judge the `out.jpg` of MultiID-Bench's folders instead of drawing.
        write_multiid: Also write the results in MultiID-Bench's layout.
        compare: Two folders of reports to put side by side instead; nothing is drawn.
        device: Where to compute; a GPU if there is one.
    """

    base: str = "tiny"
    id_adapter: str | None = None
    weight_name: str | None = None
    identities: Path | None = None
    prompts: str | None = None
    output: Path = Path("report")
    seeds: int = 1
    seed: int = 0
    id_scale: float = 0.8
    steps: int = 25
    guidance_scale: float = 5.0
    batch_size: int = 1
    eval_encoder: tuple[str, ...] = ()
    trained_with: tuple[str, ...] = ()
    detector: Path | None = None
    clip: str | None = None
    classifier: Path | None = None
    features: Path | None = None
    drawn: bool = False
    write_multiid: bool = False
    compare: tuple[Path, Path] | None = None
    device: str | None = None


def evaluate(options: EvaluateOptions, open_pipeline: Callable[..., Any]) -> Path | None:
    """Draw, judge and report, or compare.

    Args:
        options: See there.
        open_pipeline: `(base, adapter, weight_name, device)` → a pipeline with an adapter.

    Returns:
        The page that was written; None in all but the main process.

    Raises:
        EvaluationError, NoFaceError, CheckpointError: The input cannot be used; nothing has been drawn then.
    """
    state = processes()
    if options.compare is not None:
        from .compare import compare

        compare(*options.compare, options.output)
        return options.output / "index.html"
    if options.identities is None:
        raise EvaluationError("Whom to evaluate? Give --identities, or --compare two reports.")
    cases = load_cases(options.identities)
    if options.drawn:
        conditioning, shots = None, _drawn_shots(cases)
        judges = open_judges(options, None)
        check_titles(judges.metrics)
        real = read_real(cases, judges)
    else:
        device = options.device or (str(state.device) if state.num_processes > 1 else None)
        pipeline = open_pipeline(options.base, options.id_adapter, options.weight_name, device)
        conditioning = adapter_of(pipeline).config["encoder"]
        judges = open_judges(options, conditioning)
        check_titles(judges.metrics)
        real = read_real(cases, judges)  # a photo that cannot be judged shall show before hours of drawing
        shots = _draw_shots(pipeline, cases, options)
    if not state.is_main_process:
        return None
    with working(f"Judging {len(shots)} pictures …"):
        measured = measure(shots, judges, real)
        roles = encoder_roles(list(judges.encoders), conditioning, options.trained_with)
        write_report(options.output, _about(options, cases, shots), roles, _summary(measured), measured, shots)
    return options.output / "index.html"


def generate_table(
    pipeline: Any,
    settings: Settings,
    output: Path,
    *,
    table: Path | None,
    random: int,
    false_match_rate: float,
    prompts: str,
    seeds: Sequence[int],
    file_of: Callable[[Any, Mapping[str, Any]], bytes],
    batch_size: int = 1,
) -> None:
    """Draw people × prompts × seeds into a folder for each person, with their identity in it.

    Args:
        pipeline: With an adapter.
        settings: Of all pictures.
        output: The folder.
        table: People as `load_cases` reads them; None for people who do not exist.
        random: How many of those.
        false_match_rate: See `random_people`.
        prompts: See `load_prompts`; a text that is neither is a prompt itself.
        seeds: A picture each.
        file_of: See `draw`.
        batch_size: See `draw`.
    """
    from .prompts import PROMPT_SETS, Prompt

    if table is None:
        names = [f"person-{number:05d}" for number in range(random)]
        config = adapter_of(pipeline).config
        crowd = random_people(random, config["encoder"], config["embedding_dim"], false_match_rate=false_match_rate)
        cases = [Case(name=name, references=()) for name in names]
        people = {name: [replace(person, name=name)] for name, person in zip(names, crowd, strict=True)}
    else:
        cases = load_cases(table)
        people = enroll_cases(pipeline, cases)
    known = prompts in PROMPT_SETS or Path(prompts).is_file()
    texts = load_prompts(prompts) if known else (Prompt(prompts),) if prompts else ()
    drawings = plan(cases, texts, seeds)
    for name, identities in people.items():
        (output / name).mkdir(parents=True, exist_ok=True)
        for number, identity in enumerate(identities):
            identity.save(output / name / f"identity{f'-{number + 1}' if len(identities) > 1 else ''}.safetensors")
    _draw_with_progress(pipeline, drawings, people, settings, output, file_of, batch_size)


def enroll_cases(pipeline: Any, cases: Sequence[Case]) -> dict[str, list[Identity]]:
    """Name → identities, loaded or enrolled from the reference photos (the largest face of each)."""
    return {
        case.name: [Identity.load(case.identity)]
        if case.identity is not None
        else [pipeline.encode_identity(str(photo), face="largest") for photo in case.references]
        for case in cases
    }


def adapter_of(pipeline: Any) -> Any:
    """The first adapter of a pipeline."""
    return next(iter(pipeline.id_adapters.values()))


def open_judges(options: EvaluateOptions, conditioning: str | None) -> Judges:
    """Open the networks: the adapter's own encoder, and those asked for or one that the adapter does not read."""
    from .networks import Clip, OnnxNetwork, PromptClassifier, open_encoder

    unseen = (SFACE if conditioning in (None, DlibEncoder.name) else DlibEncoder.name,)
    encoders = [
        open_encoder(name) for name in (*(options.eval_encoder or unseen), *([conditioning] if conditioning else []))
    ]
    detector: Any = DlibDetector()
    if options.detector is not None:
        from ..faces.opencv import YuNetDetector

        detector = YuNetDetector(options.detector)
    clip = Clip(options.clip) if options.clip else None
    features = OnnxNetwork(options.features, "imagenet") if options.features else clip.features if clip else None
    return Judges(
        detector=detector,
        encoders={encoder.name: encoder for encoder in encoders},
        prompt_score=PromptClassifier(options.classifier) if options.classifier else clip,
        features=features,
    )


def encoder_roles(names: Sequence[str], conditioning: str | None, trained_with: Sequence[str]) -> list[dict[str, Any]]:
    """What each encoder is to the adapter; the first that it has never met is the headline."""
    known = dict.fromkeys(trained_with, "used by a loss or reward: a high figure can be a trick")
    if conditioning is not None:
        known[conditioning] = "the adapter's own: it draws from these embeddings"
    unseen = [name for name in names if name not in known]
    return [
        {"name": name, "role": known.get(name, "evaluation only"), "headline": name == next(iter(unseen), None)}
        for name in names
    ]


def _draw_shots(pipeline: Any, cases: Sequence[Case], options: EvaluateOptions) -> list[Shot]:
    folder = options.output / "pictures"
    settings = Settings(
        base=options.base,
        adapter=options.id_adapter or options.base,
        id_scale=options.id_scale,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
    )
    prompts = load_prompts(options.prompts) if options.prompts else ()
    drawings = plan(cases, prompts, range(options.seed, options.seed + options.seeds))
    twins = without_identity(drawings)
    people = enroll_cases(pipeline, cases)
    _draw_with_progress(pipeline, [*drawings, *twins], people, settings, folder, batch_size=options.batch_size)
    by_name = {case.name: case for case in cases}
    twin_files = {(twin.prompt, twin.seed): folder / f"{twin.path}.png" for twin in twins}
    shots = [
        Shot(
            case=by_name[drawing.person],
            file=folder / f"{drawing.path}.png",
            prompt=drawing.prompt,
            label=drawing.label,
            seed=drawing.seed,
            without=twin_files[drawing.prompt, drawing.seed],
            seconds=read_settings(folder, drawing)["seconds"],
        )
        for drawing in drawings
    ]
    if options.write_multiid:
        for shot in shots:
            write_multiid(options.output / "multiid" / shot.file.stem, shot.case, shot.file, shot.prompt)
    return shots


def _drawn_shots(cases: Sequence[Case]) -> list[Shot]:
    if missing := [case.name for case in cases if case.output is None]:
        raise EvaluationError(f"--drawn judges pictures, and there is no out.jpg of {', '.join(missing[:5])}.")
    return [Shot(case=case, file=case.output, prompt=case.prompt or "") for case in cases if case.output]


def _draw_with_progress(
    pipeline: Any,
    drawings: Sequence[Drawing],
    people: dict[str, list[Identity]],
    settings: Settings,
    folder: Path,
    file_of: Callable[[Any, Mapping[str, Any]], bytes] = lambda picture, _: png(picture),
    batch_size: int = 1,
) -> None:
    with Progress(console=console) as bar:
        task = bar.add_task("Drawing", total=len(drawings))
        draw(pipeline, drawings, people, settings, folder, lambda _: bar.advance(task), file_of, batch_size)


def _summary(measured: Measured) -> list[dict[str, Any]]:
    import numpy as np

    from .frechet import frechet_distance

    names = np.array(measured.probes), np.array(measured.gallery)
    table = summarise(
        measured.rows, {name: Scores(scores, measured.genuine, *names) for name, scores in measured.scores.items()}
    )
    if measured.features is not None and min(map(len, measured.features)) > 1:
        told = {"metric": "fid", "title": "Fréchet distance", "encoder": "", "group": ""}
        table.append(
            {**told, "value": frechet_distance(*measured.features), "low": float("nan"), "high": float("nan")}
        )
    return table


def _about(options: EvaluateOptions, cases: Sequence[Case], shots: Sequence[Shot]) -> dict[str, Any]:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    memory = f"{kilobytes / 1024:.0f} MiB of main memory"
    if torch.cuda.is_available():
        memory += f", {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB of GPU memory"
    drawn = {
        "base": options.base,
        "adapter": options.id_adapter or options.base,  # the small model brings its own
        "identity scale": options.id_scale,
        "steps": options.steps,
        "guidance scale": options.guidance_scale,
        "prompts": options.prompts or "each case's own",
    }
    counts = {"people": len(cases), "pictures": len(shots), "peak memory of this process": memory}
    return {**({} if options.drawn else drawn), **counts}
