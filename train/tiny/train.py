"""Train the built-in model from photos to the packaged folder.

    python train/tiny/train.py train/tiny/tiny.toml

`tiny.toml` is the shipped model of 64 px, `tiny128.toml` the one of 128 px that is being made.
Stages that are done are skipped, and a stage that was cut off goes on where it was. On a GPU the same command trains
autoencoder and base in bfloat16, compiled, with the whole set on the device, and what comes after in TF32.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from recipe.adapter import (
    average_stages,
    train_adapter,
    train_base_with_adapter,
    train_identity_net,
    train_reward,
)
from recipe.autoencoder import make_encoder, train_autoencoder
from recipe.base import train_base
from recipe.config import Config, load_config
from recipe.crops import make_crops
from recipe.faces import find_faces
from recipe.held_out import find_people
from recipe.labels import make_labels
from recipe.latents import make_latents
from recipe.package import make_package, unpack
from recipe.people import make_embeddings
from recipe.poses import make_poses

Stage = Callable[[Config, dict[str, Path]], None]

STAGES: dict[str, Stage] = {
    "faces": lambda c, f: find_faces(c, f["faces"]),
    "people": lambda c, f: find_people(c, f["faces"], f["people"]),
    "crops": make_crops,
    "labels": make_labels,
    "encoder": lambda c, f: make_encoder(c, f["crops"], f["encoder"]),
    "autoencoder": lambda c, f: train_autoencoder(c, f["crops"], f["encoder"], f["autoencoder"]),
    "latents": lambda c, f: make_latents(c.autoencoder, f["crops"], finished_encoder(c, f), f["latents"]),
    "base": lambda c, f: train_base(c, f["latents"], f["labels"], f["base"]),
    "embeddings": make_embeddings,
    "joint": train_base_with_adapter,
    "adapter": train_adapter,
    "reward": train_reward,
    "averaged": average_stages,
    "poses": make_poses,
    "identity_net": train_identity_net,
    "package": make_package,
}


def finished_encoder(settings: Config, folders: dict[str, Path]) -> Path:
    """The autoencoder whose encoder changes no more: one that is not trained need not wait for its decoder."""
    return folders["autoencoder"] / "final" if settings.autoencoder.components is None else folders["encoder"]


def run_stages(settings: Config, until: str | None = None, only: str | None = None) -> None:
    """Run what is not done yet, up to and including `until`, or `only` one stage."""
    folders = {name: settings.paths.cache / name for name in STAGES}
    for name, stage in STAGES.items():
        if only and name != only:
            continue
        done = folders[name] / "done"
        if done.exists():
            print(f"{name}: done")
        else:
            folders[name].mkdir(parents=True, exist_ok=True)
            stage(settings, folders)
            done.touch()
        if name == until:
            return


def start_from_package(settings: Config) -> None:
    """Take autoencoder and base from the packaged model instead of training them."""
    folders = [settings.paths.cache / name for name in ("autoencoder", "base")]
    if not all((folder / "done").exists() for folder in folders):
        unpack(settings.paths.output, *folders)
        for folder in folders:
            (folder / "done").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--until", choices=list(STAGES), help="stop after this stage")
    parser.add_argument("--only", choices=list(STAGES), help="run this stage, and take those before it as they are")
    parser.add_argument(
        "--from-package", action="store_true", help="take autoencoder and base as packaged, and train the rest"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    settings = load_config(arguments.settings)
    if arguments.from_package:
        start_from_package(settings)
    run_stages(settings, arguments.until, arguments.only)


if __name__ == "__main__":
    main()
