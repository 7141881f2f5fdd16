"""Is an adapter better for its losses and its reward? Trains one for each row of docs/results.md, and judges them all.

    python train/tiny/ablation.py train/tiny/tiny.toml --london PHOTOS

Goes on from `train.py`'s stages up to `joint`. Rows that are done are skipped, cut ones go on. Several processes can
share the work: each `--rows` names some.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from recipe.adapter import open_base
from recipe.benchmark import write_judge, write_people, write_prompts
from recipe.config import Config, load_config, shared_folder
from recipe.rows import RECIPE, all_rows, train_row
from train import run_stages

from idgen.evaluation.command import EvaluateOptions, evaluate

SEEDS = 3
"""Trainings of the first and the last row."""


def prepare(settings: Config, london: Path, each: int) -> dict[str, Path]:
    """People, prompts and the judge of prompts, made once."""
    folder = settings.paths.cache / "benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / name for name in ("people.csv", "prompts.txt", "judge.onnx")}
    if not (folder / "done").exists():
        write_people(settings, london, folder, each)
        write_prompts(files["prompts.txt"])
        write_judge(settings, settings.paths.cache / "crops", files["judge.onnx"])
        (folder / "done").touch()
    return files


def judge(settings: Config, files: dict[str, Path], adapter: Path, scale: float, report: Path) -> None:
    """Draw and judge everybody by an adapter; at scale 0 by none."""
    folders = {name: settings.paths.cache / name for name in ("autoencoder", "base", "joint")}

    def open_pipeline(*_: Any) -> Any:
        pipeline: Any = open_base(folders).pipeline
        pipeline.load_id_adapter(adapter)
        return pipeline

    options = EvaluateOptions(
        base="idgen-tiny",
        id_adapter=str(adapter),
        identities=files["people.csv"],
        prompts=str(files["prompts.txt"]),
        output=report,
        scale=scale,
        steps=settings.table.steps,
        guidance_scale=settings.table.guidance_scale,
        batch_size=20,
        encoder=(f"imagenet:{settings.paths.yunet.with_name('mobilefacenet_eval.onnx')}",),
        trained_with=("dlib-resnet-v1",),
        detector=settings.paths.yunet,
        classifier=files["judge.onnx"],
    )
    evaluate(options, open_pipeline)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument(
        "--london", type=Path, default=shared_folder() / "data" / "london", help="photos of more people"
    )
    parser.add_argument("--rows", nargs="+", help="some rows alone, as denoising-0")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = load_config(arguments.settings)
    run_stages(settings, until="joint")
    folders = {
        name: settings.paths.cache / name
        for name in ("crops", "autoencoder", "latents", "base", "embeddings", "joint")
    }
    files = prepare(settings, arguments.london, settings.table.people)
    reports = settings.paths.cache / "reports"
    wanted = arguments.rows or [row.title for row in all_rows(SEEDS)]
    for row in (row for row in all_rows(SEEDS) if row.title in wanted):
        adapter = row.folder(settings.paths.cache)
        if row == RECIPE:
            run_stages(settings, until="averaged")
            judge(settings, files, adapter, 0.0, reports / "nobody")
        else:
            train_row(settings, folders, row)
        judge(settings, files, adapter, 1.0, reports / row.title)


if __name__ == "__main__":
    main()
