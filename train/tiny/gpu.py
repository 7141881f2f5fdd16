"""Train the built-in model on a GPU machine that is available for minutes and has no photos.

    python train/tiny/gpu.py pack train/tiny/tiny128.toml BASE ADAPTER PACK   # here: the photos, small
    python train/tiny/gpu.py train train/tiny/tiny128.toml PACK OUT           # there: nine minutes
    python train/tiny/gpu.py collect train/tiny/tiny128.toml PACK OUT RESULT  # here: base and adapters as folders

Training continues from BASE, ADAPTER and the IdentityNet in its folder, which are copied to PACK: those of the model
of 64 px, or of an earlier RESULT. The table `gpu` of the TOML file has the seconds, the batch size and the learning
rate of every training. Without a GPU `train` works too, slowly: try it first with `--most 1 --batch 4`.
"""

from __future__ import annotations

import argparse
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffusers import AutoencoderTiny
from recipe.config import Config, load_config
from recipe.details import wide_autoencoder
from recipe.on_device.posed import pack_poses
from recipe.on_device.start import ADAPTER, BASE, FINE, lacks_details, open_net, open_person
from recipe.on_device.trainings import ADAPTERS, Trainings
from recipe.pack import pack as pack_photos
from recipe.package import usage_at, write_pipeline
from recipe.pieces import load_pieces
from transformers import CLIPTokenizer

from idgen.convert import NET

COMMANDS = {
    "pack": ("base", "adapter", "pack"),
    "train": ("pack", "output"),
    "collect": ("pack", "output", "result"),
}
"""The folders that each command takes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, folders in COMMANDS.items():
        command = commands.add_parser(name)
        command.add_argument("settings", type=Path)
        for folder in folders:
            command.add_argument(folder, type=Path)
        if name == "train":
            command.add_argument("--most", type=int, default=0, help="updates of each training, for a trial")
            command.add_argument("--batch", type=int, default=0, help="batch size, for a trial")
            command.add_argument(
                "--minutes", type=float, default=9.5, help="for everything; the last trainings are cut"
            )
    arguments = vars(parser.parse_args())
    settings = load_config(arguments.pop("settings"))
    {"pack": write_pack, "train": train, "collect": collect}[arguments.pop("command")](settings, **arguments)


def write_pack(settings: Config, base: Path, adapter: Path, pack: Path) -> None:
    """Write what the GPU machine needs."""
    pack_photos(settings, settings.stages, pack)
    pack_poses(settings, settings.stages, pack)
    for name, folder in ((BASE, base), (ADAPTER, adapter)):
        shutil.copytree(folder, pack / name, dirs_exist_ok=True)


def train(
    settings: Config, pack: Path, output: Path, most: int = 0, batch: int = 0, minutes: float = math.inf
) -> None:
    """Train everything; see `Trainings`."""
    stages = {name: replace(stage, batch=batch or stage.batch) for name, stage in settings.gpu.items()}
    Trainings(replace(settings, gpu=stages), pack, output, most, minutes).run()


def collect(settings: Config, pack: Path, output: Path, result: Path) -> None:
    """Write the results as folders: `base`, the adapter after each training, and the IdentityNet.

    The IdentityNet is the given one if the process was ended before its training.
    """
    model = open_person(pack)
    autoencoder = AutoencoderTiny.from_pretrained(pack / BASE / "vae")
    autoencoder = wide_autoencoder(autoencoder, FINE) if lacks_details(autoencoder) else autoencoder
    for name, net in (("autoencoder", autoencoder), ("unet", model.unet), ("text_encoder", model.text_encoder)):
        load_pieces(net, output, name)
    tokenizer = CLIPTokenizer.from_pretrained(pack / BASE / "tokenizer")
    networks: dict[str, Any] = {"text_encoder": model.text_encoder, "tokenizer": tokenizer, "unet": model.unet}
    write_pipeline(settings, {**networks, "vae": autoencoder}, usage_at(settings, settings.crops.size), result / BASE)
    for name in ADAPTERS:
        load_pieces(model.adapter, output, name)
        model.adapter.save_pretrained(result / name)
    net = open_net(pack)
    if any(output.glob(f"{NET}-*")):
        load_pieces(net, output, NET)
    net.save_pretrained(result / NET)


if __name__ == "__main__":
    main()
