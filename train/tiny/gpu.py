"""Train autoencoder and base on a GPU machine that is available for minutes and has no photos.

    python train/tiny/gpu.py pack train/tiny/tiny128.toml PACK         # here: the photos in pieces of 26 MB
    python train/tiny/gpu.py train train/tiny/tiny128.toml PACK OUT    # there: ten minutes, results in pieces of 15 MB
    python train/tiny/gpu.py collect train/tiny/tiny128.toml OUT       # here: what the stages would have left

The tables below `gpu` in the TOML file are used. Without a GPU `train` works too, slowly: try it first with
`--samples 64 --batch 8`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from diffusers import AutoencoderTiny
from recipe.autoencoder import build, make_encoder, train_autoencoder
from recipe.base import Model, open_tokenizer, save_base, train_base
from recipe.config import STAGES, Config, load_config
from recipe.latents import make_latents
from recipe.pack import pack, unpack
from recipe.pieces import load_pieces, save_pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, folders in (("pack", ["pack"]), ("train", ["pack", "output"]), ("collect", ["output"])):
        command = commands.add_parser(name)
        command.add_argument("settings", type=Path)
        for folder in folders:
            command.add_argument(folder, type=Path)
        if name == "train":
            command.add_argument("--samples", type=int, help="budget of each training, for a trial")
            command.add_argument("--batch", type=int, help="batch size, for a trial")
    arguments = parser.parse_args()
    settings = load_config(arguments.settings, gpu=True)
    folders = settings.stages
    if arguments.command == "pack":
        pack(folders, arguments.pack)
        open_tokenizer(folders["base"] / "tokenizer", settings.base.text_length, settings.start).save_pretrained(
            arguments.pack / "tokenizer"
        )
    elif arguments.command == "train":
        train(shorten(settings, arguments.samples, arguments.batch), arguments.pack, arguments.output)
    else:
        collect(settings, folders, arguments.output)


def shorten(settings: Config, samples: int | None, batch: int | None) -> Config:
    """The same trainings with another budget and batch size."""
    changes = {key: value for key, value in (("samples", samples), ("batch", batch)) if value}
    phases = tuple(replace(phase, **changes) for phase in settings.autoencoder.phases)
    return replace(
        settings,
        autoencoder=replace(settings.autoencoder, phases=phases),
        base=replace(settings.base, **changes),
    )


def train(settings: Config, source: Path, output: Path) -> None:
    """Train in a temporary folder, and write the weights in pieces and the log of losses to `output`."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in STAGES}
        for folder in folders.values():
            folder.mkdir()
        unpack(settings, source, folders)
        shutil.copytree(source / "tokenizer", folders["base"] / "tokenizer")
        make_encoder(settings, folders["crops"], folders["encoder"])
        make_latents(settings, folders["crops"], folders["encoder"], folders["latents"])
        save_pieces(AutoencoderTiny.from_pretrained(folders["encoder"]).encoder, output, "encoder")
        model = train_base(settings, folders["latents"], folders["labels"], folders["base"])
        save_pieces(model, output, "base")
        shutil.copy(folders["base"] / "losses.jsonl", output / "base.jsonl")
        train_autoencoder(settings, folders["crops"], folders["encoder"], folders["autoencoder"])
        save_pieces(AutoencoderTiny.from_pretrained(folders["autoencoder"] / "final").decoder, output, "decoder")


def collect(settings: Config, folders: Mapping[str, Path], output: Path) -> None:
    """Write the results to the folders of their stages, and mark these as done."""
    ours = settings.autoencoder
    net = build(settings)
    load_pieces(net.encoder, output, "encoder")
    load_pieces(net.decoder, output, "decoder")
    net.save_pretrained(folders["encoder"])
    net.save_pretrained(folders["autoencoder"] / "final")
    side = settings.crops.size >> (len(ours.encoder_blocks) - 1)
    tokenizer = open_tokenizer(folders["base"] / "tokenizer", settings.base.text_length)
    model = Model(settings.base, tokenizer, ours.latent_channels, side)
    load_pieces(model, output, "base")
    save_base(model, folders["base"] / "final")
    for name in ("encoder", "autoencoder", "base"):
        (folders[name] / "done").touch()


if __name__ == "__main__":
    main()
