"""What each loss and the reward add at equal compute, for the built-in model.

    python benchmarks/proof.py shards/ people/ --encoder imagenet:mobilefacenet.onnx --yunet yunet.onnx \\
        --classifier judge.onnx --output proof/

A new adapter is trained by denoising alone. Each row continues its training for the same processor time, with the
settings of `train/tiny`. The people who are drawn must not be in the training set. An interrupted benchmark continues
when it is started again.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from rich.console import Console
from rich.table import Table

TRAIN = Path(__file__).resolve().parents[1] / "train" / "tiny"
NEW = ("--num_tokens", "8", "--num_words", "4", "--lora_rank", "64", "--optimizer.learning_rate", "1e-3")
PILOT = 4, 12
"""Updates of two runs whose difference measures the processor time of an update."""


class Stage(NamedTuple):
    """A training, from the adapter before it, for a share of a row's compute."""

    name: str
    share: float = 1.0

    @property
    def options(self) -> tuple[str, ...]:
        if self.name == "reward":
            return "reward", "--config", str(TRAIN / "reward128.toml")
        off = [f"{loss}=0" for loss in ("identity", "contrastive", "preservation") if loss not in self.name]
        return "denoise", "--config", str(TRAIN / "adapter.toml"), *(["--losses", *off] if off else [])


class Row(NamedTuple):
    """A row of the table: trainings one after the other, or the mean of another row and the start."""

    name: str
    stages: tuple[Stage, ...] = ()
    averaged: str = ""


ALL = "denoising, identity, contrastive, preservation"
ROWS = (
    Row("denoising", (Stage("denoising"),)),
    Row("+ identity loss", (Stage("denoising, identity"),)),
    Row("+ contrastive", (Stage("denoising, identity, contrastive"),)),
    Row("+ preservation", (Stage(ALL),)),
    Row("+ reward", (Stage(ALL, 0.5), Stage("reward", 0.5))),
    Row("reward without the losses", (Stage("reward"),)),
    Row("averaging alone", averaged="denoising"),
)
COLUMNS = ("sim_gt", "copy_paste", "eer", "detection", "prompt", "fid", "sharpness", "diversity")


class Proof:
    """Trains and measures the rows.

    Args:
        shards: Prepared set.
        evaluation: Options of `idgen evaluate`.
        output: Folder of all runs.
        seconds: Processor time of a row.
        batch_size: Samples of an update of stage one.
    """

    def __init__(self, shards: str, evaluation: list[str], output: Path, seconds: float, batch_size: int) -> None:
        self.shards, self.evaluation, self.output, self.seconds = shards, evaluation, output, seconds
        self.batch_size = batch_size

    def start(self, updates: int) -> Path:
        """The adapter that all rows start from."""
        return self._train(self.output / "start", Stage("denoising"), None, updates, 0, NEW)

    def row(self, row: Row, seed: int, start: Path) -> Path:
        """The adapter of a row."""
        if row.averaged:
            return self._averaged(self._folder(row.averaged, seed, 0), start, self._folder(row.name, seed, 0))
        for i, stage in enumerate(row.stages):
            updates = round(stage.share * self.seconds / self._cost(stage, start))
            start = self._train(self._folder(row.name, seed, i), stage, start, updates, seed)
        return start

    def report(self, adapter: Path) -> list[dict[str, Any]]:
        """The lines of an adapter's report over all people."""
        folder = adapter / "report"
        if not (folder / "report.json").exists():
            run("evaluate", "--id-adapter", str(adapter), "--output", str(folder), *self.evaluation)
        lines = json.loads((folder / "report.json").read_text())["summary"]
        return [line for line in lines if not line["by"]]

    def _folder(self, name: str, seed: int, stage: int) -> Path:
        return self.output / f"{name.strip('+ ').replace(' ', '-')}-{seed}-{stage}"

    def _train(
        self, folder: Path, stage: Stage, start: Path | None, updates: int, seed: int, more: tuple[str, ...] = ()
    ) -> Path:
        """Run a training unless it is done."""
        kind, *options = stage.options
        size = () if kind == "reward" else ("--train_batch_size", str(self.batch_size))
        given = ("--id_adapter", str(start)) if start else ("--id_adapter", "None")
        if not (folder / "config.json").exists():
            places = ("--base", "tiny", "--train_data_dir", self.shards, "--output_dir", str(folder))
            amount = ("--max_train_steps", str(updates), "--seed", str(seed), "--resume_from_checkpoint", "latest")
            run("train", kind, *options, *places, *given, *amount, *size, *more)
        return folder

    def _cost(self, stage: Stage, start: Path) -> float:
        """Processor seconds of an update."""
        file = self.output / "cost.json"
        known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        if stage.name not in known:
            used = []
            for updates in PILOT:
                folder, before = self.output / "pilot", processor_seconds()
                shutil.rmtree(folder, ignore_errors=True)
                self._train(folder, stage, start, updates, 0)
                used.append(processor_seconds() - before)
            known[stage.name] = (used[1] - used[0]) / (PILOT[1] - PILOT[0])
            file.write_text(json.dumps(known, indent=2) + "\n")
        return known[stage.name]

    def _averaged(self, after: Path, before: Path, folder: Path) -> Path:
        if not (folder / "config.json").exists():
            subprocess.run([sys.executable, TRAIN / "average.py", before, after, folder, "--share", "0.5"], check=True)
        return folder


def run(*command: str) -> None:
    """Run an idgen command."""
    subprocess.run([sys.executable, "-m", "idgen", *command], check=True)


def processor_seconds() -> float:
    """Processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cells(lines: list[list[dict[str, Any]]]) -> Iterator[str]:
    """A cell for each column: the figure by the first encoder with its interval, and those of further seeds."""
    for metric in COLUMNS:
        found = [next((line for line in each if line["metric"] == metric), None) for each in lines]
        values = [line for line in found if line is not None]
        if not values:
            yield ""
            continue
        first = values[0]
        interval = "" if first["low"] is None else f" ({first['low']:.3f} … {first['high']:.3f})"
        others = "".join(f", {line['value']:.3f}" for line in values[1:])
        yield f"{first['value']:.3f}{interval}{others}"


def main(
    shards: tyro.conf.Positional[str],
    people: tyro.conf.Positional[Path],
    /,
    encoder: tuple[str, ...],
    yunet: Path,
    classifier: Path,
    features: Path | None = None,
    output: Path = Path("proof"),
    minutes: float = 4.0,
    start_updates: int = 800,
    batch_size: int = 32,
    seeds: tuple[int, ...] = (0, 1, 2),
    prompts: str = str(TRAIN / "prompts.txt"),
    steps: int = 12,
) -> None:
    """Print one table.

    Args:
        shards: Prepared set of `train/tiny`.
        people: Folder with one folder of photos per person.
        encoder: Face encoders that no training has used; the table shows the first one.
        yunet: YuNet file.
        classifier: ONNX classifier of the styles, from `train/tiny/judge.py`.
        features: ONNX feature network for the Fréchet distance.
        output: Folder of the trainings and reports.
        minutes: Processor time of each row.
        start_updates: Updates of the start.
        batch_size: Samples of an update of stage one.
        seeds: Each row is trained with each of them.
        prompts: Prompts of the pictures: a text file of labels and prompts.
        steps: Denoising steps of a picture.
    """
    judges = ["--eval-encoder", *encoder, "--detector", str(yunet), "--classifier", str(classifier)]
    judges += ["--features", str(features)] if features else []
    cases = ["--base", "tiny", "--identities", str(people), "--prompts", prompts]
    drawing = ["--steps", str(steps), "--guidance-scale", "3", "--id-scale", "1", "--batch-size", "8"]
    output.mkdir(parents=True, exist_ok=True)
    proof = Proof(shards, [*cases, *drawing, *judges], output, 60 * minutes, batch_size)
    start = proof.start(start_updates)
    table = Table(title=f"{minutes:g} minutes of one core each, by {encoder[0]}")
    for column in ("", *COLUMNS):
        table.add_column(column)
    table.add_row("start", *cells([proof.report(start)]))
    for row in ROWS:
        reports = [proof.report(proof.row(row, seed, start)) for seed in seeds]
        table.add_row(row.name, *cells(reports))
        Console(width=220).print(table)


if __name__ == "__main__":
    tyro.cli(main)
