"""The command line: `idgen generate | enroll | prepare | evaluate | demo | convert | info`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

from .data.command import PrepareArguments
from .demo.command import DemoOptions
from .errors import AdapterError, IdgenError
from .evaluation.command import EvaluateOptions
from .generate import FaceOption, GenerateOptions, read_face_option
from .terminal import guarded, say, say_error, show, show_table, working


def generate(options: Annotated[GenerateOptions, tyro.conf.arg(name="")]) -> None:
    """Draw a person in a picture, or many people in many.

    idgen generate "a portrait in the rain" --photo anna.jpg --base stabilityai/sdxl --id-adapter user/adapter
    idgen generate --table people.csv --prompts prompts.txt --count 4 --output pictures/
    """
    from .generate import generate

    for path in generate(options, _open_pipeline):
        show(path)


def enroll(
    photos: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    output: Path = Path("identity.safetensors"),
    name: str | None = None,
    face: FaceOption = None,
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
    with working("Opening the face encoder …"):
        analyzer = FaceAnalyzer.for_encoder(encoder)
    person = enroll(list(photos), analyzer, face=read_face_option(face), name=name)
    if blocklist is not None:
        IdentityBlocklist.load(blocklist).check(person)
    person.save(output)
    say(person)
    show(output)


def evaluate(options: Annotated[EvaluateOptions, tyro.conf.arg(name="")]) -> None:
    """Measure an adapter on people and prompts, or compare two measurements; docs/evaluation.md explains the figures.

    idgen evaluate --base tiny --identities people/ --prompts tiny --output report/
    idgen evaluate --compare report-a/ report-b/ --output comparison/
    """
    from .evaluation.command import evaluate

    page = evaluate(options, _open_pipeline)
    if page is not None:
        show(page)


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

    show(run_prepare(arguments))


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

    with working(f"Converting {source} …"):
        parts = convert(source, target, weight_name=weight_name, variant=variant)
    say(f"Wrote {' and '.join(parts)}")
    show(target)


def inspect(picture: Annotated[Path, tyro.conf.Positional], /) -> None:
    """Show how a picture is marked: settings, invisible watermark, Content Credentials.

    Args:
        picture: Any picture, of ours or not.
    """
    from .provenance.command import inspect

    show_table(inspect(picture))


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

    show(edit_blocklist(file, add, check, threshold, encoder))


def info(path: Annotated[str, tyro.conf.Positional], /) -> None:
    """Show what an adapter or an identity file holds.

    Args:
        path: An identity file, or an adapter's folder, file or hub id.
    """
    from .info import info

    show_table(info(path))


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
    with guarded():
        try:
            if sys.argv[1:2] == ["train"]:  # its flags are those of the configurations, and a file's too
                from .training.command import main as train_main

                return train_main(sys.argv[2:])
            tyro.extras.subcommand_cli_from_dict(
                commands, prog="idgen", description="Put one person's face into any picture."
            )
        except IdgenError as error:
            say_error(error)
            sys.exit(1)


def _open_pipeline(
    base: str, adapter: str | None, weight_name: str | None, device: str | None, adapter_name: str = "default"
) -> Any:
    import torch
    from diffusers import AutoPipelineForText2Image

    from .tiny import load_tiny, load_tiny_base

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with working(f"Opening {base} …"):
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
