"""The table, the diagrams and the contact sheet of docs/results.md, from the reports that `ablation.py` has written.

python train/tiny/results.py train/tiny/tiny.toml --images docs/images/results
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from ablation import SEEDS
from matplotlib.figure import Figure
from PIL import Image
from recipe.config import load_config
from recipe.rows import NAMES, RECIPE, all_rows

from idgen.evaluation.compare import compare
from idgen.faces import load_photo

COLUMNS = ("sim_gt", "sim_ref", "copy_paste", "detection", "eer", "prompt", "diversity")
PERCENT = ("detection", "eer", "prompt")
BASE, FULL = NAMES[0], NAMES[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="folder for the pictures")
    arguments = parser.parse_args()
    reports = load_config(arguments.settings).paths.cache / "reports"
    names = ["nobody", *(row.title for row in all_rows(SEEDS))]
    found = {name: json.loads((reports / name / "report.json").read_text()) for name in names}
    for encoder in [entry["name"] for entry in found["nobody"]["encoders"]]:
        print(f"\n{encoder}\n\n{table(found, encoder)}")
    for group in ("LFW", "London"):
        print(f"\n{group}\n\n{table(found, found['nobody']['encoders'][0]['name'], group)}")
    print(f"\n{FULL} less {BASE}\n\n{differences(reports)}")
    arguments.images.mkdir(parents=True, exist_ok=True)
    draw_bars(found, arguments.images / "likeness.png")
    draw_sheet(reports, arguments.images / "faces.png")
    draw_curves(reports.parent, arguments.images / "curves.png")


def table(reports: dict[str, Any], encoder: str, group: str = "") -> str:
    """Markdown: a line for each report, a column for each figure with its 95 % interval."""
    titles = {line["metric"]: line["title"] for line in reports["nobody"]["summary"]}
    lines = ["| row | " + " | ".join(titles[column] for column in COLUMNS) + " |", "|" + " --- |" * (len(COLUMNS) + 1)]
    for name, report in reports.items():
        cells = [_cell(figure(report, column, encoder, group), column) for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    real = figure(reports["nobody"], "real", encoder, group)
    return "\n".join([*lines, f"| two real photos | {_cell(real, 'sim_gt')} |" + " |" * (len(COLUMNS) - 1)])


def figure(report: dict[str, Any], metric: str, encoder: str, group: str = "") -> dict[str, float] | None:
    """Value and interval of one figure; none where the report lacks it."""
    for line in report["summary"]:
        if line["metric"] == metric and line["group"] == group and line["encoder"] in (encoder, ""):
            return line
    return None


def differences(reports: Path) -> str:
    """Markdown: what the full training changes, for each of the pairs that share a seed."""
    lines = ["| figure | encoder | " + " | ".join(f"seed {seed}" for seed in range(SEEDS)) + " |", "| --- " * 5 + "|"]
    pairs = [
        compare(reports / f"{BASE}-{seed}", reports / f"{FULL}-{seed}", reports / f"compared-{seed}")
        for seed in range(SEEDS)
    ]
    for same in zip(*pairs, strict=True):
        if same[0]["metric"] in COLUMNS:
            cells = [_cell({**line, "value": line["difference"]}, line["metric"], signed=True) for line in same]
            lines.append(f"| {same[0]['title']} | {same[0]['encoder']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw_bars(reports: dict[str, Any], file: Path) -> None:
    """Sim(GT) of every training by the encoder that none was trained with."""
    encoder = reports["nobody"]["encoders"][0]["name"]
    lines = {name: figure(report, "sim_gt", encoder) for name, report in reports.items()}
    shown = Figure(figsize=(8, 3.4), layout="constrained")
    axes = shown.subplots()
    for place, (name, line) in enumerate(lines.items()):
        assert line is not None
        colour = "C1" if name.startswith(FULL) else "grey" if name == "nobody" else "C0"
        reach = [[line["value"] - line["low"]], [line["high"] - line["value"]]]
        axes.bar(place, line["value"], yerr=reach, color=colour, capsize=4)
    axes.set_xticks(range(len(lines)), [name.replace("-", "\nseed ") for name in lines], fontsize=8)
    axes.set_ylabel("Sim(GT), unseen encoder")
    axes.grid(axis="y", alpha=0.3)
    shown.savefig(file, dpi=110)


def draw_curves(cache: Path, file: Path) -> None:
    """The losses that tell most, as running means: of the base with its adapter, and of both stages of the adapter."""
    shown = Figure(figsize=(10, 3.2), layout="constrained")
    joint, first, second = shown.subplots(1, 3)
    log = _log(cache / "joint" / "losses.jsonl")
    joint.plot(*_running([line["samples"] / 1000 for line in log], [line["loss"] for line in log]))
    joint.set(title="base and adapter", xlabel="thousand samples", ylabel="denoising")
    for row in all_rows(SEEDS):
        full = row.name == FULL
        folder = cache if row == RECIPE else row.folder(cache)
        log = _log((folder / "adapter" if full else folder) / "metrics.jsonl")
        if "identity" in log[0] and row.seed == 0:
            first.plot(*_curve(log, "identity"), label=row.name)
        if full:
            second.plot(*_curve(_log(folder / "reward" / "metrics.jsonl"), "identity"), label=f"seed {row.seed}")
    first.set(title="stage one", xlabel="updates", ylabel="identity loss")
    second.set(title="stage two", xlabel="updates", ylabel="identity reward")
    for axes in (first, second):
        axes.legend(fontsize=8)
    shown.savefig(file, dpi=110)


def draw_sheet(reports: Path, file: Path, people: int = 12) -> None:
    """Generated faces alone: a column for each person, three lines for each of two adapters; noise is the same."""
    names = sorted(folder.name for folder in (reports / f"{FULL}-0" / "pictures").iterdir())
    chosen = [names[i] for i in np.linspace(0, len(names) - 2, people).astype(int)]  # the last one is nobody
    strips = []
    for row in (f"{BASE}-0", f"{FULL}-0"):
        for prompt in range(3):
            files = [reports / row / "pictures" / name / f"{prompt:03d}-0.png" for name in chosen]
            strips.append(np.concatenate([load_photo(picture) for picture in files], 1))
    Image.fromarray(np.concatenate(strips)).save(file)


def _log(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _curve(log: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Updates and running means; what a line does not have, as a share of missed faces, is 0. A run that was killed
    has done some updates twice: the later ones count."""
    values = {line["step"]: line.get(key, 0.0) for line in log if line.get(key, 0.0) is not None}  # null: not finite
    return _running(list(values), list(values.values()))


def _running(x: list[float], y: list[float], window: int = 25) -> tuple[np.ndarray, np.ndarray]:
    return np.array(x[window - 1 :]), np.convolve(y, np.ones(window) / window, "valid")


def _cell(line: dict[str, Any] | None, metric: str, signed: bool = False) -> str:
    if line is None:
        return ""
    factor, digits = (100, 1) if metric in PERCENT else (1, 3)
    value, low, high = (factor * line[key] for key in ("value", "low", "high"))
    plus = "+" if signed else ""
    unit = " %" if factor == 100 else ""
    return f"{value:{plus}.{digits}f}{unit} ({low:{plus}.{digits}f} … {high:{plus}.{digits}f})"


if __name__ == "__main__":
    main()
