"""`idgen generate`: images of one person, or of many people."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..data.engine_options import EngineOptions
from ..errors import IdgenError
from ..evaluation.prompts import PROMPT_SETS, load_prompts
from ..faces import load_photo
from ..inputs import AdapterName, Amounts, BaseName, EncoderSpec, InputPath, InputPlace, NetworkName, existing_path
from ..provenance.options import MarkOptions
from ..terminal import show
from ..tiny.usage import Usage, usage_of
from .shared import FaceOption, check_adapter, read_face_option


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Options of `idgen generate`.

    Attributes:
        prompt: Prompt.
        photo: One or several photos of the person.
        identity: Identity file of the person, written by `idgen enroll`, instead of photos. The default is the file in
            the folder of the adapter, if it was tuned on one person.
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model of the package.
        id_adapter: Identity adapter for this base: a folder, a file or a hub id, of idgen or in a public format
            (InstantX/InstantID, h94/IP-Adapter-FaceID).
        weight_name: File of the adapter, if its folder or repository holds several.
        lora: LoRA for this base: a folder, a file or a hub id. With one of `idgen train distil`, steps and
            guidance_scale are those that it is made for. A LoRA in the folder of the adapter is loaded without this.
        encoder: Face encoder that the adapter reads; needed only if it is a file or code of your own.
        output: PNG file, or folder for files named PERSON-SEED.png. By default the folder is the current one; with
            --table or --random it is "pictures". With --count above 1 a file's name gets the seed.
        id_scale: Strength of the identity conditioning; 0 turns it off.
        move: Change attributes of the person, NAME=AMOUNT, such as smile=0.8 or age=-0.5; 1 is a clear change. The
            default encoder knows smile, age and sex; NAME may be a file of a direction of your own, which ends in
            .safetensors.
        expression: Photo whose expression is drawn, of anybody; requires --expression-adapter.
        expression_adapter: Adapter that reads expressions, trained by `idgen train denoise --encoder expression-v1`.
        expression_scale: Strength of the expression; 0 turns it off.
        face: Face to use in photos that show several: the largest, an index (from 0, largest first) or a box.
        negative_prompt: Negative prompt.
        steps: Denoising steps; by default what the base model recommends, or 25.
        guidance_scale: Strength of classifier-free guidance; by default what the base model recommends, or 5.
        count: Number of images, or of images per person and prompt; they use consecutive seeds.
        seed: Seed of the first image.
        upscale: Enlarge the images this many times, by Lanczos interpolation. It adds no detail.
        device: Device to compute on. Defaults to a GPU if there is one.
        table: Generate every person of a table (.csv with the columns person, reference or identity, noun) or of a
            folder with one folder of photos per person. An interrupted run continues when it is started again.
        random: Generate this many invented people instead.
        set: Make a training set of the people of --random: shards in this folder, as `idgen prepare` writes them, and
            a report on how well the people can be told apart. Pose, expression, light, background and style vary.
        pictures: Images per person of --set, 16 if not given.
        real: Shards of real people: nobody of --random resembles one of them more than one in 10,000 pairs of
            strangers resemble each other, and the report of --set says how similar they are.
        eval_encoder: Face encoders that the report of --set measures with, besides the adapter's own.
        false_match_rate: Invented people are no more similar to each other than this share of pairs of real strangers;
            by default 2 divided by their number, and at most 0.01.
        batch_size: Images generated at once with --table or --random.
        prompts: Prompts for --table and --random: a set (fastcomposer, pulid-portrait, tiny) or a text file with one
            prompt per line.
        engine: Which processes generate the images of --table, --random or --set.
        marks: How images are marked, and who is refused.
    """

    prompt: Annotated[str, tyro.conf.Positional] = ""
    photo: tuple[InputPath, ...] = ()
    identity: InputPath | None = None
    base: BaseName = "tiny"
    id_adapter: AdapterName | None = None
    weight_name: str | None = None
    lora: NetworkName | None = None
    encoder: EncoderSpec | None = None
    output: Path | None = None
    id_scale: float = 0.8
    move: Amounts = field(default_factory=dict)
    expression: InputPath | None = None
    expression_adapter: NetworkName | None = None
    expression_scale: float = 1.0
    face: FaceOption = None
    negative_prompt: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    count: int = 1
    seed: int = 0
    upscale: int = 1
    device: str | None = None
    table: InputPath | None = None
    random: int = 0
    set: Path | None = None
    pictures: int | None = None
    real: InputPlace | None = None
    eval_encoder: tuple[EncoderSpec, ...] = ()
    false_match_rate: float | None = None
    batch_size: int = 1
    prompts: str = ""
    engine: Annotated[EngineOptions, tyro.conf.arg(name="")] = field(default_factory=EngineOptions)
    marks: Annotated[MarkOptions, tyro.conf.arg(name="")] = field(default_factory=MarkOptions)

    def __post_init__(self) -> None:
        for name in ("count", "upscale", "batch_size"):
            if getattr(self, name) < 1:
                raise IdgenError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}.")
        if self.steps is not None and self.steps < 1:
            raise IdgenError(f"--steps must be at least 1, got {self.steps}.")
        if self.move and self.many:
            raise IdgenError("--move changes one person: it requires --photo or --identity.")
        if self.engine != EngineOptions() and not self.many:
            raise IdgenError(f"--engine {self.engine.engine} is for many people: it requires --table or --random.")
        for name in self.move:
            if name.endswith(".safetensors"):
                existing_path(name)
        self._check_set()

    def _check_set(self) -> None:
        """Check the options of --set; none is ignored without it."""
        if self.pictures is not None and self.pictures < 2:
            raise IdgenError(f"--pictures must be at least 2, got {self.pictures}.")
        if self.real is not None and not self.random:
            raise IdgenError(f"--real {self.real} requires --random: it keeps invented people apart from real ones.")
        if self.set is None:
            if self.pictures is not None or self.eval_encoder:
                given = f"--eval-encoder {self.eval_encoder}" if self.eval_encoder else "--pictures"
                raise IdgenError(f"{given} requires --set.")
            return
        others = self.prompts, self.prompt, self.output, self.table, self.photo, self.identity
        if self.random < 2 or any(others) or self.count != 1:
            raise IdgenError(
                "--set requires --random with two people or more and --pictures instead of --count, and takes no "
                "prompt, person or --output: idgen generate --random 1000 --pictures 16 --set shards/"
            )

    @property
    def many(self) -> bool:
        """Whether many people are generated."""
        return self.table is not None or self.random > 0

    @property
    def seeds(self) -> range:
        """Seeds of the images."""
        return range(self.seed, self.seed + self.count)

    @property
    def usage(self) -> Usage:
        """What the base model recommends, and the words that it knows."""
        return usage_of(self.base, self.lora)

    @property
    def identity_file(self) -> Path | None:
        """The identity file that is given, or that lies in the folder of the adapter."""
        own = None if self.id_adapter is None else Path(self.id_adapter) / "identity.safetensors"
        if self.identity is not None or self.photo or own is None or not own.is_file():
            return self.identity
        return own

    @property
    def texts(self) -> list[str]:
        """The prompts."""
        if self.prompts and (self.prompts in PROMPT_SETS or Path(self.prompts).is_file()):
            return [prompt.text for prompt in load_prompts(self.prompts)]
        return [text for text in (self.prompts or self.prompt,) if text]


def run(options: Annotated[GenerateOptions, tyro.conf.arg(name="")]) -> None:
    """Generate images of a person, or of many people.

    idgen generate "a portrait in the rain" --photo anna.jpg

    idgen generate --table people.csv --prompts prompts.txt --count 4 --output pictures/

    idgen generate --random 1000 --pictures 16 --set shards/
    """
    check_adapter(options.base, options.id_adapter)
    read_face_option(options.face)
    if (options.expression is None) != (options.expression_adapter is None):
        raise IdgenError("--expression, a photo, and --expression-adapter require each other.")
    if options.expression is not None and options.many:
        raise IdgenError("--expression is for one person: it requires --photo or --identity.")
    if not options.many:
        _check_one_person(options)
    from ..generation import generate_many, generate_one

    for path in generate_many(options) if options.many else generate_one(options):
        show(path)


def _check_one_person(options: GenerateOptions) -> None:
    """Check what can be checked without a model."""
    if not options.prompt:
        raise IdgenError('A prompt is required: idgen generate "a portrait in the rain" --photo anna.jpg')
    if options.output is not None and options.output.suffix.lower() not in ("", ".png"):
        raise IdgenError(
            f"Images are written as PNG, which keeps their marks intact; '{options.output}' must end in .png, or be a "
            "folder."
        )
    if options.identity_file is None and not options.photo:
        raise IdgenError("--photo or --identity is required.")
    for photo in (*options.photo, *([] if options.expression is None else [options.expression])):
        load_photo(photo)
