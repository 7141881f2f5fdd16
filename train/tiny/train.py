"""Train `idgen-tiny` from photos to the packaged folder.

    python train/tiny/train.py train/tiny/tiny.toml

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
from recipe.autoencoder import train_autoencoder
from recipe.base import train_base
from recipe.config import Config, load_config
from recipe.crops import make_crops
from recipe.latents import make_latents
from recipe.package import make_package, unpack
from recipe.people import make_embeddings
from recipe.poses import make_poses

Stage = Callable[[Config, dict[str, Path]], None]

STAGES: dict[str, Stage] = {
    "crops": lambda c, f: make_crops(c, f["crops"]),
    "autoencoder": lambda c, f: train_autoencoder(c, f["crops"], f["autoencoder"]),
    "latents": lambda c, f: make_latents(f["crops"], f["autoencoder"] / "final", f["latents"]),
    "base": lambda c, f: train_base(c, f["latents"], f["base"]),
    "embeddings": lambda c, f: make_embeddings(c, f["embeddings"]),
    "joint": train_base_with_adapter,
    "adapter": train_adapter,
    "reward": train_reward,
    "averaged": average_stages,
    "poses": make_poses,
    "identity_net": train_identity_net,
    "package": make_package,
}


def run_stages(settings: Config, until: str | None = None) -> None:
    """Run what is not done yet, up to and including `until`."""
    folders = {name: settings.paths.cache / name for name in STAGES}
    for name, stage in STAGES.items():
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
    parser.add_argument(
        "--from-package", action="store_true", help="take autoencoder and base as packaged, and train the rest"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    settings = load_config(arguments.settings)
    if arguments.from_package:
        start_from_package(settings)
    run_stages(settings, arguments.until)


if __name__ == "__main__":
    main()
