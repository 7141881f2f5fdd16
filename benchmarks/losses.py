"""What each loss does: short runs of the built-in model that differ in one loss, and a table of them.

    idgen prepare lfw/ --layout webdataset --output shards/ --validation-share 0.1 --cache latents text
    python benchmarks/losses.py shards/ mobilefacenet.onnx --detector yunet.onnx --output ablation/

Each row is `idgen train denoise` with the same seed, data and number of updates, from the built-in adapter on, and
`idgen evaluate` on people of the validation split by an encoder that no training has used. It is compared with the row
that it differs from in one loss. One seed is one seed: effects within the interval are none.

Every row has a folder. A row that is done is not run again, and one that was interrupted continues.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from idgen.data.bank import IdentityBank
from idgen.data.columns import open_photo
from idgen.data.index import read_index
from idgen.data.manifest import Manifest
from idgen.files import read_json, write_bytes
from idgen.losses import LOSSES

PROMPT = "a photo of a face"
IDENTITY = ("identity=2@0.85", "contrastive=0", "preservation=0.1")
CONTRASTIVE = ("identity=2@0.85", "contrastive=0.05@0.85", "preservation=0.1")


@dataclass(frozen=True)
class Ablation:
    """A row.

    Attributes:
        losses: Arguments of `--losses`.
        flags: Further flags of `idgen train denoise`.
        against: Row that it is compared with.
        test: Where its formula is checked.
        paper: Source; by default that of the loss of the same name.
    """

    losses: tuple[str, ...]
    flags: tuple[str, ...] = ()
    against: str = "identity"
    test: str = "tests/losses/test_identity.py"
    paper: str = ""


def added(name: str, weight: str, test: str, *flags: str) -> Ablation:
    """The row of a loss that is added to identity and preservation."""
    losses = (*IDENTITY, f"{name}={weight}@0.85")
    return Ablation(losses, flags, test=f"tests/losses/{test}.py", paper=LOSSES.rows[name].source)


def option(paper: str, *flags: str, test: str = "tests/losses/test_identity.py") -> Ablation:
    """The row of an option of the contrastive loss."""
    return Ablation(CONTRASTIVE, flags, "contrastive", test, paper)


def combined(method: str, paper: str) -> Ablation:
    """The row of a way to combine the gradients of identity and other losses."""
    return Ablation(IDENTITY, ("--optimizer.combine", method), test="tests/training/test_conflicts.py", paper=paper)


ROWS: dict[str, Ablation] = {
    "denoising": Ablation(
        ("identity=0", "contrastive=0", "preservation=0"), against="", test="tests/losses/test_denoising.py"
    ),
    "identity": Ablation(IDENTITY, against="denoising"),
    "contrastive": Ablation(CONTRASTIVE),
    "features": added("features", "0.5", "test_faces"),
    "symmetry": added("symmetry", "0.5", "test_faces"),
    "patches": added("patches", "2", "test_faces"),
    "prototype": added("prototype", "2", "test_prototypes"),
    "prototype, learned": added("prototype", "0.2", "test_prototypes", "--losses.learned_prototypes"),
    "relation": added("relation", "0.05", "test_prototypes", "--losses.older_adapter", "tiny"),
    "reliability": option(
        "ISR (2308.08887)", "--losses.reliability", test="tests/losses/test_weighted.py, tests/data/test_people.py"
    ),
    "centred": option("", "--losses.centred", test="tests/losses/test_centred.py"),
    "whiskers": option("UNPG (2203.11593)", "--losses.whiskers", "1.5"),
    "heads": option("AMCL (2310.05615)", "--losses.heads", "4"),
    "learned heads": option("AMCL (2310.05615)", "--losses.heads", "4", "--losses.learned", "heads"),
    "learned temperature": option("AMCL (2310.05615)", "--losses.learned", "temperature"),
    "learned gates": option("Hydra", "--losses.learned", "gates"),
    "mixup": option("Metrix (2106.04990)", "--losses.mixup", "0.4"),
    "threshold": added("threshold", "1", "test_identity"),
    "mann_whitney": added("mann_whitney", "0.05", "test_identity"),
    "error_rates": added("error_rates", "0.5", "test_identity"),
    "robust": added("robust", "0.05", "test_identity"),
    "identity_head": added("identity_head", "0.2", "test_identity"),
    "norm_direction": added("norm_direction", "1", "test_identity"),
    "huber": Ablation(
        IDENTITY,
        ("--losses.huber", "0.00054"),
        test="tests/losses/test_denoising.py",
        paper="improved consistency training (2310.14189)",
    ),
    "log-normal timesteps": Ablation(
        IDENTITY,
        ("--losses.timesteps", "lognormal"),
        test="tests/training/test_denoiser.py",
        paper="improved consistency training (2310.14189)",
    ),
    "window 0.2 to 0.6": Ablation(
        ("identity=2@0.2-0.6", *IDENTITY[1:]), test="tests/losses/test_weighted.py", paper="DiTi (2401.11430)"
    ),
    "pcgrad": Ablation(
        IDENTITY,
        ("--optimizer.combine", "pcgrad"),
        test="tests/training/test_conflicts.py",
        paper="PCGrad (2001.06782)",
    ),
    "mgda": Ablation(
        IDENTITY, ("--optimizer.combine", "mgda"), test="tests/training/test_conflicts.py", paper="MGDA (1810.04650)"
    ),
}


def main(
    shards: tyro.conf.Positional[Path],
    unseen: tyro.conf.Positional[Path],
    output: Path = Path("ablation"),
    rows: tuple[str, ...] = (),
    updates: int = 200,
    batch: int = 16,
    people: int = 40,
    seeds: int = 2,
    learning_rate: float = 1e-4,
    detector: Path | None = None,
) -> None:
    """Run the rows that are not done, and write `table.md` after each.

    Args:
        shards: Shards of 128 px with a validation split.
        unseen: ONNX file of a face encoder that no training has used; it reads ImageNet's normalisation.
        output: Folder of the runs and of the table.
        rows: Names of the rows; all by default, and those that they are compared with.
        updates: Weight updates of each row.
        batch: Samples of an update.
        people: People of the validation split.
        seeds: Pictures of each person.
        learning_rate: Learning rate of each run.
        detector: YuNet model file; replaces dlib's detector, which is slower.
    """
    keep_settings(output, updates=updates, batch=batch, people=people, seeds=seeds, learning_rate=learning_rate)
    photos = output / "people"
    if not photos.exists():
        write_people(shards, photos, people)
    prompts = output / "prompt.txt"
    write_bytes(prompts, PROMPT.encode())
    draw = ["--identities", photos, "--prompts", prompts, "--seeds", seeds, "--batch-size", 20, "--steps", 20]
    draw += ["--id-scale", 1, "--guidance-scale", 3, "--eval-encoder", f"imagenet:{unseen.resolve()}"]
    draw += ["--trained-with", "dlib-resnet-v1", *(["--detector", detector] if detector else [])]
    train = ["--train_data_dir", shards, "--resolution", 128, "--id_adapter", "tiny", "--flip", 0]
    train += ["--max_train_steps", updates, "--train_batch_size", batch, "--validation_people", 0]
    train += ["--optimizer.learning_rate", learning_rate, "--optimizer.lr_warmup_steps", min(20, updates // 2)]
    train += ["--checkpointing_steps", 50, "--resume_from_checkpoint", "latest"]
    for name in with_references(rows or ROWS):
        row = ROWS[name]
        folder = place(output, name)
        if not (folder / "report" / "report.json").exists():
            start = time.perf_counter()
            run("train", "denoise", *train, "--output_dir", folder / "run", "--losses", *row.losses, *row.flags)
            trained = time.perf_counter()
            run("evaluate", *draw, "--id-adapter", folder / "run", "--output", folder / "report")
            print(f"{name}: {trained - start:.0f} s of training, {time.perf_counter() - trained:.0f} s of measurement")
        write_bytes(output / "table.md", table(output).encode())
    print((output / "table.md").read_text())


def keep_settings(output: Path, **settings: float) -> None:
    """Write the settings at the first call, and compare them at later ones: rows of other settings are not alike."""
    file = output / "settings.json"
    if file.exists() and read_json(file) != settings:
        sys.exit(
            f"The rows in '{output}' were run with {read_json(file)}. Use the same settings, or another --output."
        )
    output.mkdir(parents=True, exist_ok=True)
    write_bytes(file, json.dumps(settings).encode())


def with_references(names: Iterable[str]) -> list[str]:
    """The rows and those that they are compared with, in the order of `ROWS`."""
    wanted = {*names}
    while missing := {ROWS[name].against for name in wanted} - wanted - {""}:
        wanted |= missing
    return [name for name in ROWS if name in wanted]


def place(output: Path, name: str) -> Path:
    """The folder of a row."""
    return output / name.replace(" ", "-").replace(",", "")


def run(*arguments: Any) -> None:
    """Run a command of idgen, in a process of its own."""
    subprocess.run([sys.executable, "-m", "idgen", *map(str, arguments)], check=True)


def write_people(shards: Path, folder: Path, count: int) -> None:
    """Two photos each of people of the validation split, the reference first."""
    bank, names = IdentityBank(str(shards), "validation"), list(Manifest.open(str(shards)).shards)
    several = np.flatnonzero(bank.references > 1)[:count]
    for person in several:
        for i, (shard, row) in enumerate(bank.rows[bank.starts[person] :][:2]):
            tar = shards / f"{names[int(shard)]}.tar"
            found = read_index(str(tar.with_suffix(".parquet"))).slice(int(row), 1).to_pylist()[0]
            photo = folder / f"{person:04d}" / f"{i}.png"
            photo.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(open_photo(str(tar), found)).save(photo)
    print(f"{len(several)} people of the validation split")


def table(output: Path) -> str:
    """The rows that are done, as a markdown table."""
    found = {name: read(place(output, name)) for name in ROWS}
    lines = [
        "| loss | seed paper | flag | test | Sim(GT) | EER | faces found | effect on Sim(GT) |",
        "| --- " * 8 + "|",
    ]
    for name, row in ROWS.items():
        if (values := found[name]) is None:
            continue
        flags = " ".join(["--losses", *row.losses, *row.flags])
        paper = row.paper or (LOSSES.rows[name].source if name in LOSSES.rows else "")
        (sim, low, high), eer, faces = values["sim_gt"], values["eer"][0], values["detection"][0]
        effect = "" if not (other := found.get(row.against)) else f"{sim - other['sim_gt'][0]:+.3f} to {row.against}"
        measured = f"{sim:.3f} ({low:.3f} … {high:.3f}) | {eer:.1%} | {faces:.0%} | {effect}"
        lines.append(f"| {name} | {paper} | `{flags}` | {row.test} | {measured} |")
    return "\n".join(lines) + "\n"


def read(folder: Path) -> dict[str, tuple[float, float, float]] | None:
    """Metric → value and interval, by the unseen encoder; None if the row is not done."""
    if not (folder / "report" / "report.json").exists():
        return None
    report = read_json(folder / "report" / "report.json")
    unseen = next(each["name"] for each in report["encoders"] if each["headline"])
    lines = [line for line in report["summary"] if not line["group"] and line["encoder"] in ("", unseen)]
    return {line["metric"]: (line["value"], line["low"], line["high"]) for line in lines}


if __name__ == "__main__":
    tyro.cli(main)
