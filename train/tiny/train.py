"""Train the autoencoder and the base of the built-in model, and write the photos that `idgen prepare` reads.

    python train/tiny/train.py train/tiny/tiny.toml

`tiny.toml` is the model of 64 px, and `tiny128.toml` the one of 128 px that continues it. Stages that are done are
skipped, and a stage that was interrupted continues. `adapter.sh` continues the model of 64 px from here with `idgen`'s
own commands, and `gpu.py` that of 128 px.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from recipe.autoencoder import make_encoder, train_autoencoder
from recipe.base import train_base
from recipe.config import STAGES, Config, load_config
from recipe.crops import make_crops
from recipe.faces import find_faces
from recipe.held_out import find_people
from recipe.labels import make_labels
from recipe.latents import make_latents
from recipe.package import make_pipeline
from recipe.shards import write_photos

Stage = Callable[[Config, Mapping[str, Path]], object]

_STAGES: dict[str, Stage] = {
    "faces": lambda c, f: find_faces(c, f["faces"]),
    "people": lambda c, f: find_people(c, f["faces"], f["people"]),
    "crops": make_crops,
    "labels": make_labels,
    "encoder": lambda c, f: make_encoder(c, f["crops"], f["encoder"]),
    "autoencoder": lambda c, f: train_autoencoder(c, f["crops"], f["encoder"], f["autoencoder"]),
    "latents": lambda c, f: make_latents(c, f["crops"], f["autoencoder"] / "final", f["latents"]),
    "base": lambda c, f: train_base(c, f["latents"], f["labels"], f["base"]),
    "pipeline": make_pipeline,
    "photos": write_photos,
}


def run_stages(settings: Config, until: str | None = None, only: str | None = None) -> None:
    """Run the stages that are not done, up to and including `until`, or `only` one."""
    for name in settings.stages:
        if only and name != only:
            continue
        done = settings.stages[name] / "done"
        if done.exists():
            print(f"{name}: done")
        else:
            done.parent.mkdir(parents=True, exist_ok=True)
            _STAGES[name](settings, settings.stages)
            done.touch()
        if name == until:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--until", choices=STAGES, help="last stage to run")
    parser.add_argument("--only", choices=STAGES, help="the only stage to run")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    run_stages(load_config(arguments.settings), arguments.until, arguments.only)


if __name__ == "__main__":
    main()
