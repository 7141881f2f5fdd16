"""What `idgen generate` does: images of one person or of many people, their similarity, and their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from .commands.shared import load_expression_adapter, open_pipeline, read_face_option
from .errors import IdgenError, ProvenanceError
from .evaluation.cases import adapter_of
from .evaluation.drawer import FileOf
from .evaluation.drawing import DrawingSettings
from .evaluation.judges import Judges, open_judges, read_faces
from .evaluation.launched import device_of_process
from .evaluation.opener import PipelineOpener
from .evaluation.scores import beside_strangers
from .evaluation.similarity import cosine_similarity
from .evaluation.synthesis import generate_table, random_people
from .faces import FaceAnalyzer
from .files import write_bytes
from .identity import Identity
from .terminal import say, warn

if TYPE_CHECKING:
    from .commands.generate import GenerateOptions
    from .data.engines import Engine
    from .provenance.options import MarkOptions

PICTURES = 16
"""Images of each person of a set, if the option does not say."""


def generate_one(options: GenerateOptions) -> list[Path]:
    """Generate images of one person and print their similarity; returns the files."""
    person = None if options.identity_file is None else Identity.load(options.identity_file)
    opener, settings = _open(options)
    pipeline = opener.pipeline
    person = person or pipeline.encode_identity(list(options.photo), face=read_face_option(options.face))
    shown = _moved(options, pipeline, person)
    pictures = pipeline(
        options.prompt,
        negative_prompt=options.negative_prompt,
        id_embeds=shown,
        id_scale=options.id_scale,
        **_expression(options, pipeline),
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        num_images_per_prompt=options.count,
        generator=[torch.Generator().manual_seed(seed) for seed in options.seeds],
    ).images
    pictures_shown = [_enlarged(picture, options.upscale) for picture in pictures]
    told = {"prompt": options.prompt, **asdict(settings)}
    told |= {"move": {Path(name).stem: amount for name, amount in options.move.items()}} if options.move else {}
    told |= {"expression_scale": options.expression_scale} if options.expression else {}
    paths = _paths(options, person)
    for picture, seed, path in zip(pictures_shown, options.seeds, paths, strict=True):
        write_bytes(path, options.marks.file_of(picture, {**told, "seed": seed}), ProvenanceError)
    for line in _similarities(pictures, paths, person):
        say(line)
    return paths


def _moved(options: GenerateOptions, pipeline: Any, person: Identity) -> Identity:
    """The person with changed attributes. The blocklist sees the person as enrolled: a long move hides them."""
    if options.move and (blocklist := pipeline.id_blocklist) is not None:
        blocklist.check(person)
    for name, amount in options.move.items():
        person = person.moved(name, amount)
    return person


def _expression(options: GenerateOptions, pipeline: Any) -> dict[str, Any]:
    """The arguments of a call that draws an expression; none without one."""
    if options.expression is None or options.expression_adapter is None:
        return {}
    load_expression_adapter(pipeline, options.expression_adapter)
    face = read_face_option(options.face)
    found = pipeline.encode_identity(options.expression, face=face, adapter_name="expression")
    return {"expression_image": found, "expression_scale": options.expression_scale}


def generate_many(options: GenerateOptions) -> list[Path]:
    """Generate images of the people of a table, or of invented people; returns the folder, or the page on a set."""
    opener, settings = _open(options)
    with options.engine.open() as engine:
        if options.set is not None:
            return _generate_set(options, opener, settings, options.set, engine)
        output = options.output or Path("pictures")
        generate_table(
            opener,
            settings,
            output,
            table=options.table,
            people=None if options.table is not None else _invented(options, opener.pipeline),
            prompts=options.prompts or options.prompt,
            seeds=options.seeds,
            file_of=_file_of(options),
            batch_size=options.batch_size,
            engine=engine,
        )
    return [output]


def _generate_set(
    options: GenerateOptions, opener: PipelineOpener, settings: DrawingSettings, output: Path, engine: Engine
) -> list[Path]:
    """Make a training set of invented people; returns the page of its report, in the main process."""
    from .evaluation.summary import as_text
    from .evaluation.synthetic_set import REPORT, SetPlan, make_set

    people = _invented(options, opener.pipeline)
    plan = SetPlan.of(
        people, options.pictures or PICTURES, options.seed, lambda phrase: not options.usage.unknown_words(phrase)
    )
    judges = open_judges(people[0].encoder, eval_encoder=options.eval_encoder)
    summary = make_set(
        opener,
        settings,
        plan,
        output,
        judges,
        file_of=_file_of(options),
        batch_size=options.batch_size,
        engine=engine,
        real=options.real,
    )
    if summary is None:
        return []
    for line in as_text(summary):
        say(line)
    return [output / REPORT / "index.html"]


def _invented(options: GenerateOptions, pipeline: Any) -> list[Identity]:
    config = adapter_of(pipeline).config
    real = None
    if options.real is not None:
        from .evaluation.synthetic_set import real_people

        real = real_people(options.real, config["encoder"])
    return random_people(
        options.random,
        config["encoder"],
        config["embedding_dim"],
        false_match_rate=options.false_match_rate,
        real=real,
    )


def _file_of(options: GenerateOptions) -> FileOf:
    return partial(_file, options.marks, options.upscale)


def _file(marks: MarkOptions, upscale: int, picture: Image.Image, told: Mapping[str, object]) -> bytes:
    return marks.file_of(_enlarged(picture, upscale), told)


def _open(options: GenerateOptions) -> tuple[PipelineOpener, DrawingSettings]:
    """The opened pipeline, and the settings that are written into the images; says what the model knows."""
    _ = options.marks.people, options.marks.signer  # reads their files before the models are opened
    usage = options.usage
    if usage.words:
        name = "built-in model" if options.base == "tiny" else options.base
        say(f"{name}, {usage.resolution} px; it knows these words: {', '.join(usage.words)}")
        unknown = dict.fromkeys(word for text in options.texts for word in usage.unknown_words(text))
        if unknown:
            warn(f"The model does not know {', '.join(unknown)}: these words have no effect.")
    settings = DrawingSettings(
        base=options.base,
        adapter=options.id_adapter or options.base,  # the small model has its own adapter
        id_scale=options.id_scale,
        steps=options.steps or usage.num_inference_steps,
        guidance_scale=usage.guidance_scale if options.guidance_scale is None else options.guidance_scale,
        negative_prompt=options.negative_prompt,
        lora=options.lora,
    )
    source = options.base, options.id_adapter, options.weight_name, device_of_process(options.device)
    open_it = partial(open_pipeline, *source, lora=options.lora)
    opener = PipelineOpener(partial(_open_guarded, options.marks, open_it), options.encoder)
    _ = opener.pipeline
    return opener, settings


def _open_guarded(marks: MarkOptions, open_it: Callable[[], Any]) -> Any:
    """A pipeline that refuses the people on the blocklist."""
    pipeline = open_it()
    marks.prepare(pipeline)
    return pipeline


def _enlarged(picture: Image.Image, times: int) -> Image.Image:
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.LANCZOS)


def _paths(options: GenerateOptions, person: Identity) -> list[Path]:
    """A file for each image, named after the person and the seed unless the option says otherwise."""
    if options.output is not None and options.output.suffix:
        several = options.count > 1
        seeds = [f"-{seed}" if several else "" for seed in options.seeds]
        return [options.output.with_stem(options.output.stem + seed) for seed in seeds]
    first = options.identity_file or options.photo[0]
    name = re.sub(r"[^\w.-]+", "-", person.name or first.stem).strip("-.") or "person"
    return [(options.output or Path()) / f"{name}-{seed}.png" for seed in options.seeds]


def _similarities(pictures: Sequence[Image.Image], paths: Sequence[Path], person: Identity) -> list[str]:
    """Lines with the similarity of each image to the person, and what it is to be compared with."""
    try:
        analyzer = FaceAnalyzer.for_encoder(person.encoder)
    except IdgenError as error:  # the images exist
        warn(f"The similarity is not measured. {error}")
        return []
    judges = Judges(detector=analyzer.detector, encoders={person.encoder: analyzer.encoder})
    reference = {person.encoder: person.embedding(normalised=True).numpy()[None]}
    lines = []
    for picture, path in zip(pictures, paths, strict=True):
        faces, crop = read_faces(np.asarray(picture.convert("RGB")), reference, judges)
        cosine = cosine_similarity(faces[person.encoder], reference[person.encoder])[0]
        lines.append(f"{path.name}: " + ("no face was found" if crop is None else f"similarity {cosine:.3f}"))
    return [*lines, f"By {person.encoder}, which the adapter reads{beside_strangers(person.encoder)}."]
