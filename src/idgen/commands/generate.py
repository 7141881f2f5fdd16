"""`idgen generate`: images of one person, or of many people."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from ..errors import IdgenError
from ..evaluation.drawing import DrawingSettings
from ..evaluation.synthesis import generate_table
from ..faces import load_photo
from ..faces.registry import EncoderSpec, register_encoder
from ..identity import Identity
from ..provenance.command import MarkOptions, save_pictures
from ..terminal import say, show
from .shared import FaceOption, open_pipeline, read_face_option


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Options of `idgen generate`.

    Attributes:
        prompt: Prompt.
        photo: One or several photos of the person.
        identity: Identity file of the person, written by `idgen enroll`, instead of photos.
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model of the package.
        id_adapter: Identity adapter for this base: a folder, a file or a hub id, of idgen or in a public format
            (InstantX/InstantID, h94/IP-Adapter-FaceID).
        weight_name: File of the adapter, if its folder or repository holds several.
        encoder: Face encoder that the adapter reads; needed only if it is a file or code of your own.
        output: PNG file to write; with --count above 1 each file name gets a number. With --table or --random a
            folder.
        id_scale: Strength of the identity conditioning; 0 turns it off.
        face: Face to use in photos that show several: the largest, an index (from 0, largest first) or a box.
        negative_prompt: Negative prompt.
        steps: Denoising steps.
        guidance_scale: Strength of classifier-free guidance.
        count: Number of images, or of images per person and prompt; they use consecutive seeds.
        seed: Seed of the first image.
        device: Device to compute on. Defaults to a GPU if there is one.
        table: Generate every person of a table (.csv with the columns person, reference or identity, noun) or of a
            folder with one folder of photos per person. An interrupted run continues when it is started again.
        random: Generate this many invented people instead.
        false_match_rate: Invented people are no more similar to each other than this share of pairs of real strangers.
        batch_size: Images generated at once with --table or --random.
        prompts: Prompts for --table and --random: a set (fastcomposer, pulid-portrait, tiny) or a text file with one
            prompt per line.
        marks: How images are marked, and who is refused.
    """

    prompt: Annotated[str, tyro.conf.Positional] = ""
    photo: tuple[Path, ...] = ()
    identity: Path | None = None
    base: str = "tiny"
    id_adapter: str | None = None
    weight_name: str | None = None
    encoder: EncoderSpec | None = None
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
        """Seeds of the images."""
        return range(self.seed, self.seed + self.count)

    @property
    def settings(self) -> DrawingSettings:
        """Settings that are written into the images."""
        return DrawingSettings(
            base=self.base,
            adapter=self.id_adapter or self.base,  # the small model has its own adapter
            id_scale=self.id_scale,
            steps=self.steps,
            guidance_scale=self.guidance_scale,
            negative_prompt=self.negative_prompt,
        )


def run(options: Annotated[GenerateOptions, tyro.conf.arg(name="")]) -> None:
    """Generate images of a person, or of many people.

    idgen generate "a portrait in the rain" --photo anna.jpg

    idgen generate --table people.csv --prompts prompts.txt --count 4 --output pictures/
    """
    if options.table is not None or options.random > 0:
        _generate_table(options)
        show(options.output)
    else:
        for path in _generate_one_person(options):
            show(path)


def _generate_table(options: GenerateOptions) -> None:
    if options.table is not None and not options.table.exists():
        raise IdgenError(f"There is no file or folder '{options.table}'.")
    pipeline = _open(options)
    generate_table(
        pipeline,
        options.settings,
        options.output,
        table=options.table,
        random=options.random,
        false_match_rate=options.false_match_rate,
        prompts=options.prompts or options.prompt,
        seeds=options.seeds,
        file_of=options.marks.file_of,
        batch_size=options.batch_size,
    )


def _generate_one_person(options: GenerateOptions) -> list[Path]:
    """Generate and save; everything that can be checked without the models is checked first."""
    if not options.prompt:
        raise IdgenError('A prompt is required: idgen generate "a portrait in the rain" --photo anna.jpg')
    if options.output.suffix.lower() != ".png":
        raise IdgenError(
            f"Images are written as PNG, which keeps their marks intact; '{options.output}' must end in .png."
        )
    if options.identity is None and not options.photo:
        raise IdgenError("--photo or --identity is required.")
    face = read_face_option(options.face)
    person = Identity.load(options.identity) if options.identity is not None else None
    for photo in options.photo:
        load_photo(photo)
    settings = options.settings
    pipeline = _open(options)
    person = person or pipeline.encode_identity(list(options.photo), face=face)
    say(f"Generating {person}")
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


def _open(options: GenerateOptions) -> Any:
    _ = options.marks.people, options.marks.signer  # reads their files before the models are opened
    if options.encoder is not None:
        register_encoder(options.encoder)
    pipeline = open_pipeline(options.base, options.id_adapter, options.weight_name, options.device)
    options.marks.prepare(pipeline)
    return pipeline
