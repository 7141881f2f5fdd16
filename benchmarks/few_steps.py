"""What few steps cost: the small model's own steps against those of a LoRA of `idgen train distil`.

    python benchmarks/few_steps.py shards/ people/ --judge imagenet:mobilefacenet.onnx --output few/

The LoRA is trained once, on the training split of the shards; started again, the benchmark only draws what is missing.
Pictures are of people who were never trained on, measured by an encoder that no training has used. Intervals are
bootstrapped over people. Seconds are for a picture of a batch, on this machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from idgen.commands.shared import open_pipeline
from idgen.evaluation.command import evaluate
from idgen.evaluation.options import EvaluateOptions
from idgen.files import read_json
from idgen.training.config import DataConfig, LoopConfig, OptimizerConfig, ValidationConfig
from idgen.training.distil.config import ConsistencyConfig, DistilConfig
from idgen.training.distil.run import train_distil
from idgen.training.trainable import LORA_FILE

METHODS: dict[str, ConsistencyConfig] = {
    "distilled": ConsistencyConfig(),
    "distilled in 4 intervals": ConsistencyConfig(steps=4),
    "consistency training": ConsistencyConfig(
        method="training", steps=640, doubling=True, timesteps="lognormal", weighted=True
    ),
}


@dataclass(frozen=True)
class Row:
    """A row of the table: the steps, the LoRA of `METHODS`, if any, and the guidance scale; that of the model if 0."""

    steps: int
    method: str = ""
    guidance: float = 0.0

    @property
    def name(self) -> str:
        told = [f"{self.steps} steps", self.method, "no guidance" if self.guidance == 1 else ""]
        return ", ".join(filter(None, told))


def train(shards: str, folder: Path, method: str, updates: int, rank: int) -> None:
    """Train the LoRA of a method, unless it exists."""
    if (folder / LORA_FILE).is_file():
        return
    train_distil(
        DistilConfig(
            train_data_dir=shards,
            output_dir=folder,
            lora_rank=rank,
            consistency=METHODS[method],
            data=DataConfig(resolution=128, drop_text=0.0, drop_both=0.0),
            optimizer=OptimizerConfig(learning_rate=1e-3, lr_warmup_steps=10, weight_decay=0.0, ema_decay=0.9),
            loop=LoopConfig(max_train_steps=updates, train_batch_size=8, checkpointing_steps=updates),
            validation=ValidationConfig(validation_people=0),
        )
    )


def main(
    shards: str,
    people: Annotated[Path, tyro.conf.Positional],
    /,
    judge: str,
    output: Path,
    methods: tuple[str, ...] = (*METHODS,),
    updates: int = 500,
    rank: int = 32,
    count: int = 1,
) -> None:
    """Train, draw, measure and print.

    Args:
        shards: Shards of `idgen prepare`.
        people: Folder with a folder of two photos for each person.
        judge: Face encoder that measures.
        output: Folder of the LoRAs and the reports.
        methods: Names of methods.
        updates: Updates of each method.
        rank: Rank of the LoRA.
        count: Pictures per person.
    """
    prompts = output / "prompts.txt"
    output.mkdir(parents=True, exist_ok=True)
    prompts.write_text("a photo of a face\n")
    for method in methods:
        train(shards, output / method.replace(" ", "-"), method, updates, rank)
    rows = [Row(20), Row(4), Row(4, guidance=1.0), *(Row(4, method) for method in methods)]
    for row in rows:
        evaluate(
            EvaluateOptions(
                identities=people,
                prompts=str(prompts),
                output=output / row.name.replace(", ", "-").replace(" ", "-"),
                count=count,
                steps=row.steps,
                guidance_scale=row.guidance or None,
                lora=str(output / row.method.replace(" ", "-")) if row.method else None,
                eval_encoder=(judge,),
                batch_size=8,
            ),
            open_pipeline,
        )
    show(rows, output)


def show(rows: list[Row], output: Path) -> None:
    """Print the table."""
    print("| | Sim(GT) | EER | faces found | seconds |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        report = read_json(output / row.name.replace(", ", "-").replace(" ", "-") / "report.json")
        unseen = next(each["name"] for each in report["encoders"] if each["headline"])
        lines = {
            line["metric"]: line for line in report["summary"] if not line["group"] and line["encoder"] in ("", unseen)
        }
        cells = [
            "{value:.3f} ({low:.3f} … {high:.3f})".format(**lines[metric]) if metric in lines else ""
            for metric in ("sim_gt", "eer", "detection")
        ]
        print(f"| {row.name} | {' | '.join(cells)} | {lines['seconds']['value']:.2f} |")


if __name__ == "__main__":
    tyro.cli(main)
