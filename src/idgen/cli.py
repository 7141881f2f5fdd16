"""The command line: `idgen generate | enroll | prepare | evaluate | demo | convert | info`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .data.command import PrepareArguments
from .demo.command import DemoOptions
from .errors import AdapterError, IdgenError
from .evaluation.command import EvaluateOptions
from .provenance.command import MarkOptions

Face = Annotated[str | None, tyro.conf.arg(metavar="largest|INDEX|X0,Y0,X1,Y1")]
_console = Console(stderr=True, highlight=False)


def generate(
    prompt: Annotated[str, tyro.conf.Positional] = "",
    /,
    photo: tuple[Path, ...] = (),
    identity: Path | None = None,
    base: str = "tiny",
    adapter: Annotated[str | None, tyro.conf.arg(aliases=["--id-adapter"])] = None,
    weight_name: str | None = None,
    output: Path = Path("picture.png"),
    scale: float = 0.8,
    face: Face = None,
    negative_prompt: str = "",
    steps: int = 25,
    guidance_scale: float = 5.0,
    count: int = 1,
    seed: int = 0,
    device: str | None = None,
    table: Path | None = None,
    random: int = 0,
    minimum_angle: float = 60.0,
    prompts: str = "",
    marks: Annotated[MarkOptions, tyro.conf.arg(name="")] = MarkOptions(),  # noqa: B008
) -> None:
    """Draw a person in a picture, or many people in many.

    idgen generate "a portrait in the rain" --photo anna.jpg --base stabilityai/sdxl --id-adapter user/adapter
    idgen generate --table people.csv --prompts prompts.txt --count 4 --output pictures/

    Args:
        prompt: What the picture shows.
        photo: One or several photos of the person.
        identity: What `idgen enroll` wrote, instead of photos.
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model that comes with the package.
        adapter: Identity adapter for this base: a folder, a file or a hub id, of ours or a public one
            (InstantX/InstantID, h94/IP-Adapter-FaceID).
        weight_name: Its file, where the folder or repository holds several.
        output: Where the picture goes, a PNG with its settings inside; several get a number each.
        scale: How strongly the identity acts.
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
        minimum_angle: How many degrees lie between any two of those.
        prompts: A set (fastcomposer, pulid-portrait, tiny) or a text file, a prompt a line, for --table and --random.
        marks: How pictures are marked, and who is refused.
    """
    import torch

    from .identity import Identity
    from .provenance.command import save_pictures

    if table is not None or random:
        from .evaluation.command import generate_table
        from .evaluation.engine import Settings

        settings = Settings(
            base=base,
            adapter=adapter or base,
            scale=scale,
            steps=steps,
            guidance_scale=guidance_scale,
            negative_prompt=negative_prompt,
        )
        pipeline = _open_pipeline(base, adapter, weight_name, device)
        marks.prepare(pipeline)
        generate_table(
            pipeline,
            settings,
            output,
            table=table,
            random=random,
            minimum_angle=minimum_angle,
            prompts=prompts or prompt,
            seeds=range(seed, seed + count),
            file_of=marks.file_of,
        )
        print(output)
        return
    if not prompt:
        raise IdgenError("What shall the picture show? Give a prompt.")
    if output.suffix.lower() != ".png":
        raise IdgenError(f"Pictures are written as PNG, which keeps their marks whole; '{output}' should end in .png.")
    pipeline = _open_pipeline(base, adapter, weight_name, device)
    marks.prepare(pipeline)
    if identity is not None:
        person = Identity.load(identity)
    elif photo:
        person = pipeline.encode_identity(list(photo), face=_choice(face))
    else:
        raise AdapterError("Nobody to draw: give --photo or --identity.")
    _console.print(f"Drawing {person}")
    pictures = pipeline(
        prompt,
        negative_prompt=negative_prompt,
        id_embeds=person,
        id_scale=scale,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        num_images_per_prompt=count,
        generator=[torch.Generator().manual_seed(seed + i) for i in range(count)],
    ).images
    settings = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "base": base,
        "adapter": adapter or base,  # the small model brings its own
        "scale": scale,
        "steps": steps,
        "guidance_scale": guidance_scale,
    }
    for path in save_pictures(pictures, settings, range(seed, seed + count), output, marks):
        print(path)


def enroll(
    photos: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    output: Path = Path("identity.safetensors"),
    name: str | None = None,
    face: Face = None,
    encoder: str = "dlib-resnet-v1",
    blocklist: Path | None = None,
) -> None:
    """Enrol a person once, to draw them many times.

    idgen enroll anna-1.jpg anna-2.jpg --name Anna --output anna.safetensors

    Args:
        photos: Photos of the same person; the file that is written holds none of them.
        output: Where the identity goes, a few KB.
        name: What people call this person.
        face: Which face is meant where a photo shows several (indices count from 0, largest first).
        encoder: Face encoder: the default, or "insightface/" and the name of a pack. An adapter reads only identities
            of the encoder it was trained with; `idgen info` shows which.
        blocklist: People who shall not be enrolled, as `idgen blocklist` wrote them.
    """
    from .enroll import enroll
    from .faces import FaceAnalyzer
    from .provenance import IdentityBlocklist

    if not photos:
        raise IdgenError("Nobody to enrol: give at least one photo.")
    with _console.status("Opening the face encoder …"):
        analyzer = FaceAnalyzer.for_encoder(encoder)
    person = enroll(list(photos), analyzer, face=_choice(face), name=name)
    if blocklist is not None:
        IdentityBlocklist.load(blocklist).check(person)
    output.parent.mkdir(parents=True, exist_ok=True)
    person.save(output)
    _console.print(f"{person}")
    print(output)


def evaluate(options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]) -> None:
    """Measure an adapter on people and prompts, or compare two measurements; docs/evaluation.md explains the figures.

    idgen evaluate --base tiny --identities people/ --prompts tiny --output report/
    idgen evaluate --compare report-a/ report-b/ --output comparison/
    """
    from .evaluation.command import evaluate

    page = evaluate(options, _open_pipeline)
    if page is not None:
        print(page)


def demo(options: Annotated[DemoOptions, tyro.conf.arg(name="")]) -> None:
    """Open a page in the browser that does what the other commands do; docs/demo.md shows it, and its API.

    idgen demo
    idgen demo --base stabilityai/sdxl --id-adapter user/adapter
    """
    from .demo.command import run_demo

    run_demo(options, _open_pipeline)


def prepare(arguments: Annotated[PrepareArguments, tyro.conf.arg(name="")]) -> None:
    """Turn photos of people into shards that adapters are trained with; docs/prepare.md explains it.

    idgen prepare photos/ --output shards/
    idgen prepare s3://bucket/photos --output s3://bucket/shards --engine ray --address auto
    idgen prepare --report shards/
    """
    from .data.command import run_prepare

    print(run_prepare(arguments))


def train() -> None:
    """Train an adapter on shards: `idgen train denoise`, then `idgen train reward`; `--help` of each says more."""


def convert(
    source: Annotated[str, tyro.conf.Positional],
    target: Annotated[Path, tyro.conf.Positional],
    /,
    weight_name: str | None = None,
    variant: str | None = None,
) -> None:
    """Write an adapter in another form; converting there and back gives the same tensors.

    idgen convert h94/IP-Adapter-FaceID plusv2/ --weight-name ip-adapter-faceid-plusv2_sdxl.bin
    idgen convert InstantX/InstantID instantid.safetensors

    Args:
        source: A folder, a file or a hub id: InstantID, any of IP-Adapter-FaceID, or one of ours.
        target: A name in .safetensors or .bin is written in IP-Adapter's layout, any other is a folder of ours. An
            IdentityNet beside the adapter goes with it, except into .bin.
        weight_name: The file in the folder or repository, where it holds several.
        variant: Public format, where neither tensors nor names tell (faceid-plus, faceid-plusv2, instantid, ...).
    """
    from .convert import convert

    with _console.status(f"Converting {source} …"):
        parts = convert(source, target, weight_name=weight_name, variant=variant)
    _console.print(f"Wrote {' and '.join(parts)}")
    print(target)


def inspect(picture: Annotated[Path, tyro.conf.Positional], /) -> None:
    """Show how a picture is marked: settings, invisible watermark, Content Credentials.

    Args:
        picture: Any picture, of ours or not.
    """
    from .provenance.command import inspect

    _print_table(inspect(picture))


def blocklist(
    file: Annotated[Path, tyro.conf.Positional],
    /,
    add: tuple[Path, ...] = (),
    check: tuple[Path, ...] = (),
    threshold: float | None = None,
    encoder: str = "dlib-resnet-v1",
) -> None:
    """Keep a list of people who shall not be drawn; it holds no pictures and no names.

    idgen blocklist refused.safetensors --add anna-1.jpg bruno.safetensors
    idgen blocklist refused.safetensors --check photo.jpg
    idgen generate "a portrait" --photo photo.jpg --blocklist refused.safetensors

    Args:
        file: The list; `--add` makes it if there is none.
        add: Photos or identity files, each of one person.
        check: Photos or identity files; the first who is on the list ends the command with an error.
        threshold: Cosine from which on two faces are taken for one person. The default encoder has one.
        encoder: Face encoder of a new list, the one that the adapter reads.
    """
    from .provenance.command import edit_blocklist

    print(edit_blocklist(file, add, check, threshold, encoder))


def info(path: Annotated[str, tyro.conf.Positional], /) -> None:
    """Show what an adapter or an identity file holds.

    Args:
        path: An identity file, or an adapter's folder, file or hub id.
    """
    facts = _identity_facts(Path(path)) if _is_identity(Path(path)) else _adapter_facts(path)
    _print_table(facts)


def main() -> None:
    """Entry point of the `idgen` command; errors of ours end it with one line instead of a trace."""
    commands = {
        "generate": generate,
        "enroll": enroll,
        "prepare": prepare,
        "train": train,
        "evaluate": evaluate,
        "demo": demo,
        "convert": convert,
        "inspect": inspect,
        "blocklist": blocklist,
        "info": info,
    }
    try:
        if sys.argv[1:2] == ["train"]:  # its flags are those of the configurations, and a file's too
            from .training.command import main as train_main

            return train_main(sys.argv[2:])
        tyro.extras.subcommand_cli_from_dict(
            commands, prog="idgen", description="Put one person's face into any picture."
        )
    except IdgenError as error:
        _console.print(f"[bold red]Error:[/] {error}", markup=True)
        sys.exit(1)


def _open_pipeline(
    base: str, adapter: str | None, weight_name: str | None, device: str | None, adapter_name: str = "default"
) -> Any:
    import torch
    from diffusers import AutoPipelineForText2Image

    from .tiny import load_tiny, load_tiny_base

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with _console.status(f"Opening {base} …"):
        if base == "tiny":
            pipeline: Any = load_tiny() if adapter is None else load_tiny_base()
        elif adapter is None:
            raise AdapterError(f"Which identity adapter for '{base}'? Give --id-adapter.")
        else:
            dtype = torch.float32 if device == "cpu" else torch.float16
            pipeline = AutoPipelineForText2Image.from_pretrained(base, torch_dtype=dtype)
        if adapter is not None:
            pipeline.load_id_adapter(adapter, adapter_name=adapter_name, weight_name=weight_name)
    return pipeline.to(device)


def _choice(face: str | None) -> str | int | tuple[float, ...] | None:
    if face is None or face == "largest":
        return face
    try:
        numbers = [float(number) for number in face.split(",")]
    except ValueError as error:
        raise IdgenError(f"--face is 'largest', an index or X0,Y0,X1,Y1, not '{face}'.") from error
    return int(numbers[0]) if len(numbers) == 1 else tuple(numbers)


def _print_table(facts: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(Text(name, "bold"), Text(str(value)))  # never read as markup: a file's own words are in it
    Console().print(table)


def _is_identity(path: Path) -> bool:
    """Whether a file shall be read as an identity: everything but adapters."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file() or path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return not any(name.startswith("ip_adapter.") for name in file.keys())  # noqa: SIM118
    except (OSError, SafetensorError):
        return True


def _identity_facts(path: Path) -> dict[str, Any]:
    from .identity import Identity

    identity = Identity.load(path)
    return {
        "identity": identity.name or "(no name)",
        "photos": len(identity.embeddings),
        "encoder": identity.encoder,
        "embeddings": f"{'unit-length' if identity.normalised else 'raw'}, {identity.dim} numbers",
        "CLIP features": "no" if identity.features is None else "yes",
    }


def _adapter_facts(path: str) -> dict[str, Any]:
    from .adapter import IdentityAdapter
    from .adapter.layers import base_name

    adapter = IdentityAdapter.from_pretrained(path)
    config = adapter.config
    return {
        "adapter": path,
        "base": base_name(config["layers"], config["cross_attention_dim"]),
        "encoder": config["encoder"],
        "embeddings": f"{'unit-length' if config['normalised'] else 'raw'}, {config['embedding_dim']} numbers",
        "projection": f"{config['projection']}, {config['num_tokens']} tokens",
        "parameters": f"{adapter.num_parameters() / 1e6:.1f} million",
    }
