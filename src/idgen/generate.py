"""`idgen generate`: one person in a picture, or many people in many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from .errors import AdapterError, IdgenError
from .evaluation.engine import Settings
from .faces import Choice
from .provenance.command import MarkOptions
from .terminal import say

FaceOption = Annotated[str | None, tyro.conf.arg(metavar="largest|INDEX|X0,Y0,X1,Y1")]


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """What `idgen generate` is told.

    Attributes:
        prompt: What the picture shows.
        photo: One or several photos of the person.
        identity: What `idgen enroll` wrote, instead of photos.
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model that comes with the package.
        id_adapter: Identity adapter for this base: a folder, a file or a hub id, of ours or a public one
            (InstantX/InstantID, h94/IP-Adapter-FaceID).
        weight_name: Its file, where the folder or repository holds several.
        output: Where the picture goes, a PNG with its settings inside; several get a number each.
        id_scale: Strength of the identity conditioning; 0 turns it off.
        face: Which face is meant where a photo shows several (indices count from 0, largest first).
        negative_prompt: What the picture shall not show.
        steps: Denoising steps.
        guidance_scale: How closely the prompt is followed.
        count: How many pictures.
        seed: For the same pictures again.
        device: Where to compute; a GPU if there is one.
        table: Draw everybody in a table (.csv: person, reference or identity, noun) or a folder with one of photos for
            each; `output` is a folder then, and an interrupted run goes on when it is started again.
        random: In the same way, so many people who do not exist.
        false_match_rate: No two of those people are more similar than this share of pairs of real strangers.
        batch_size: With `--table` or `--random`: pictures drawn at once.
        prompts: A set (fastcomposer, pulid-portrait, tiny) or a text file, a prompt a line, for --table and --random.
        marks: How pictures are marked, and who is refused.
    """

    prompt: Annotated[str, tyro.conf.Positional] = ""
    photo: tuple[Path, ...] = ()
    identity: Path | None = None
    base: str = "tiny"
    id_adapter: str | None = None
    weight_name: str | None = None
    output: Path = Path("picture.png")
    id_scale: float = 0.8
    face: FaceOption = None
    negative_prompt: str = ""
    steps: int = 25
    guidance_scale: float = 5.0
    count: int = 1
    seed: int = 0
    device: str | None = None
    table: Path | None = None
    random: int = 0
    false_match_rate: float = 1e-3
    batch_size: int = 1
    prompts: str = ""
    marks: Annotated[MarkOptions, tyro.conf.arg(name="")] = field(default_factory=MarkOptions)

    @property
    def seeds(self) -> range:
        """One for each picture."""
        return range(self.seed, self.seed + self.count)


def generate(options: GenerateOptions, open_pipeline: Callable[..., Any]) -> list[Path]:
    """Draw.

    Args:
        options: See there.
        open_pipeline: `(base, adapter, weight_name, device)` → a pipeline with an adapter.

    Returns:
        The pictures that were written, or the folder of a table's.

    Raises:
        IdgenError: The options do not go together, a photo shows no face, or somebody is blocked.
    """
    many = options.table is not None or options.random > 0
    if not many and not options.prompt:
        raise IdgenError("What shall the picture show? Give a prompt.")
    if not many and options.output.suffix.lower() != ".png":
        raise IdgenError(
            f"Pictures are written as PNG, which keeps their marks whole; '{options.output}' should end in .png."
        )
    settings = Settings(
        base=options.base,
        adapter=options.id_adapter or options.base,  # the small model brings its own
        id_scale=options.id_scale,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        negative_prompt=options.negative_prompt,
    )
    pipeline = open_pipeline(options.base, options.id_adapter, options.weight_name, options.device)
    options.marks.prepare(pipeline)
    return (_draw_table if many else _draw_one_person)(pipeline, settings, options)


def _draw_table(pipeline: Any, settings: Settings, options: GenerateOptions) -> list[Path]:
    from .evaluation.command import generate_table

    generate_table(
        pipeline,
        settings,
        options.output,
        table=options.table,
        random=options.random,
        false_match_rate=options.false_match_rate,
        prompts=options.prompts or options.prompt,
        seeds=options.seeds,
        file_of=options.marks.file_of,
        batch_size=options.batch_size,
    )
    return [options.output]


def _draw_one_person(pipeline: Any, settings: Settings, options: GenerateOptions) -> list[Path]:
    import torch

    from .identity import Identity
    from .provenance.command import save_pictures

    if options.identity is not None:
        person = Identity.load(options.identity)
    elif options.photo:
        person = pipeline.encode_identity(list(options.photo), face=read_face_option(options.face))
    else:
        raise AdapterError("Nobody to draw: give --photo or --identity.")
    say(f"Drawing {person}")
    pictures = pipeline(
        options.prompt,
        negative_prompt=options.negative_prompt,
        id_embeds=person,
        id_scale=options.id_scale,
        num_inference_steps=options.steps,
        guidance_scale=options.guidance_scale,
        num_images_per_prompt=options.count,
        generator=[torch.Generator().manual_seed(seed) for seed in options.seeds],
    ).images
    told = {"prompt": options.prompt, **asdict(settings)}
    return save_pictures(pictures, told, options.seeds, options.output, options.marks)


def read_face_option(face: str | None) -> Choice | None:
    """`--face` as `choose_face` takes it; raises IdgenError for what is none of its forms."""
    if face is None or face == "largest":
        return face
    try:
        numbers = [float(number) for number in face.split(",")]
    except ValueError as error:
        raise IdgenError(f"--face is 'largest', an index or X0,Y0,X1,Y1, not '{face}'.") from error
    return int(numbers[0]) if len(numbers) == 1 else numbers
