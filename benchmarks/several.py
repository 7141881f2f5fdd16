"""Several people in one picture: blending, assignment and attention before and after training on composites.

    idgen prepare lfw/ --layout webdataset --output shards/
    python benchmarks/several.py shards/ people/ mobilefacenet.onnx --detector yunet.onnx --output several/

The built-in adapter is trained further at twice the width of the built-in model, on composites of two people and
without masks. It is evaluated before and after on pairs of other people, with masks (the left and the right half) and
without, by an encoder that no training has used. The attention of each person's tokens in the box around the person's
face is measured on composites of these people. What is done is not done again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

from idgen import IdentityAdapter
from idgen.commands.shared import open_pipeline
from idgen.data.assign import AssignOptions
from idgen.data.framing import framing_for
from idgen.data.group_dataset import GroupDataset
from idgen.data.loader import PairedLoader
from idgen.data.pairing import Pairing
from idgen.data.people_options import PeopleOptions
from idgen.data.prepare import PrepareOptions, prepare
from idgen.errors import EvaluationError
from idgen.evaluation import mean_interval
from idgen.evaluation.command import evaluate
from idgen.evaluation.options import EvaluateOptions
from idgen.evaluation.report import read_report
from idgen.files import read_json, write_bytes
from idgen.losses import LossConfig, make_losses
from idgen.pages import new_figure
from idgen.training.base import BaseModel
from idgen.training.denoiser import IdentityDenoiser
from idgen.training.parsing import parse
from idgen.training.randomness import generators
from idgen.training.run import train_denoising
from idgen.training.shard_batches import ShardBatches

COUNT, RESOLUTION = 2, 128
LOSSES = (
    *("identity=2", "contrastive=0.02", "preservation=0"),
    *("correspondence=0.1", "disentanglement=0.2", "in_box=0.2"),
)
METRICS = {
    "blending": "blending",
    "assignment": "assignment accuracy",
    "sim_gt": "Sim(GT)",
    "detection": "faces found",
}


def main(
    shards: Path,
    people: Path,
    encoder: Path,
    /,
    output: Path = Path("several"),
    detector: Path | None = None,
    updates: int = 750,
    batch: int = 4,
    steps: int = 8,
) -> None:
    """Train, evaluate, and print the tables.

    Args:
        shards: LFW, or other photos of faces, prepared.
        people: Folder with a folder of two photos for each person whom no training has seen.
        encoder: ONNX face encoder that no training uses.
        output: Folder of the run, the reports and the figure.
        detector: YuNet model file; replaces dlib's detector, which is slower.
        updates: Weight updates.
        batch: Pictures per update.
        steps: Denoising steps of their pictures.
    """
    held_out, before, after = output / "held-out", output / "before", output / "after"
    if not (held_out / "manifest.json").exists():
        prepare(PrepareOptions(photos=str(people), output=str(held_out), people=AssignOptions(shares={})))
    adapter = IdentityAdapter.from_pretrained("tiny")
    adapter.register_to_config(max_people=COUNT)  # to draw without masks before it was trained for that
    adapter.save_pretrained(before)
    if not (after / "config.json").exists():
        train(shards, before, after, updates, batch)
    prompts = output / "prompts.txt"
    write_bytes(prompts, b"photo\ta photo of a face and a face\n", EvaluationError)
    table = ["| | masks | " + " | ".join(METRICS.values()) + " |", "| --- " * (2 + len(METRICS)) + "|"]
    for name, folder in (("before", before), ("after", after)):
        for masks in ("strips", "none"):
            report = output / f"report-{name}-{masks}"
            if not (report / "report.json").exists():
                options = EvaluateOptions(
                    id_adapter=str(folder),
                    identities=people,
                    prompts=str(prompts),
                    output=report,
                    people=COUNT,
                    masks=masks,
                    steps=steps,
                    eval_encoder=(f"imagenet:{encoder}",),
                    trained_with=("dlib-resnet-v1",),
                    detector=detector,
                )
                evaluate(options, open_pipeline)
            table.append(f"| {name} | {masks} | {' | '.join(figures(report))} |")
    print("\n".join([*table, "", *attention(str(held_out), output, {"before": before, "after": after})]))


def train(shards: Path, before: Path, after: Path, updates: int, batch: int) -> None:
    """Train the adapter further on composites of two people side by side, without masks."""
    flags: dict[str, Any] = {
        **{"train_data_dir": shards, "output_dir": after, "id_adapter": before, "resolution": RESOLUTION},
        **{"group": "photo", "people.masks": "none", "people.overlap": 0, "learning_rate": 3e-4},
        **{"max_train_steps": updates, "train_batch_size": batch, "validation_people": 0, "lr_warmup_steps": 20},
        **{"checkpointing_steps": 50, "ema_decay": 0.98, "resume_from_checkpoint": "latest"},
    }
    renamed = {name: f"optimizer.{name}" for name in ("learning_rate", "lr_warmup_steps", "ema_decay")}
    arguments = [part for name, value in flags.items() for part in (f"--{renamed.get(name, name)}", str(value))]
    several = ["--people.count", str(COUNT), str(COUNT), "--losses", *LOSSES]
    train_denoising(parse("denoise", ["--preset", "tiny", *arguments, *several], "idgen train denoise"))


def figures(report: Path) -> list[str]:
    """The metrics of a report by the encoder that training did not use, with intervals."""
    told = read_report(report)
    (headline,) = (encoder["name"] for encoder in told["encoders"] if encoder["headline"])
    lines = {line["metric"]: line for line in told["summary"] if line["encoder"] in ("", headline)}
    return [f"{lines[name]['value']:.3f} ({lines[name]['low']:.3f} to {lines[name]['high']:.3f})" for name in METRICS]


def attention(held_out: str, output: Path, adapters: dict[str, Path], batches: int = 3) -> list[str]:
    """The share of each person's attention in the box around the face, and a figure of it."""
    file = output / "attention.json"
    if not file.exists():
        found = {
            f"{name}, {masks}": measured(held_out, folder, masks, batches)
            for name, folder in adapters.items()
            for masks in ("boxes", "none")
        }
        write_bytes(file, repr(found).replace("'", '"').encode(), EvaluationError)
    shares: dict[str, Any] = read_json(file, EvaluationError)
    figure, axes = new_figure(5.5, 3)
    lines = ["| | attention in the box of the person |", "| --- | --- |"]
    for i, (name, values) in enumerate(shares.items()):
        mean = mean_interval(np.array(values), np.arange(len(values)))
        axes.bar(i, mean.value, yerr=[[mean.value - mean.low], [mean.high - mean.value]], color=f"C{i // 2}")
        lines.append(f"| {name} | {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}) |")
    axes.set_xticks(range(len(shares)), shares, fontsize="small")
    axes.set_ylabel("attention in the person's box")
    figure.savefig(output / "attention.png", dpi=100)
    return lines


@torch.no_grad()
def measured(shards: str, folder: Path, masks: Any, batches: int, size: int = 8) -> list[float]:
    """The share of each picture, the mean over its people, the layers and random timesteps."""
    base = BaseModel.open("tiny", torch.float32, torch.device("cpu"))
    people = PeopleOptions(masks=masks, count=(COUNT, COUNT), overlap=0)
    pairing = Pairing(drop_text=0, drop_identity=0, drop_both=0, flip=0)
    framing = framing_for("tiny", RESOLUTION)
    dataset = GroupDataset(shards, people=people, framing=framing, pairing=pairing)
    stream = iter(ShardBatches(PairedLoader(dataset, size), base.pipeline.vae, encode=base.encode))
    adapter = IdentityAdapter.from_pretrained(folder)
    adapter.attach(base.unet)
    losses = make_losses(LossConfig.only(in_box=1, denoising=0), base.parametrisation)
    step = IdentityDenoiser(base, adapter, losses, masks=masks)
    shares: list[float] = []
    for i in range(batches):
        with step:
            outside = step(next(stream), generators(0, i, 0, size)).values
        shares += (1 - outside).tolist()
    return shares


if __name__ == "__main__":
    tyro.cli(main)
