"""The section "Training" of a model card: what an adapter was trained with, and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.manifest import Manifest
from ..errors import TrainingError
from ..files import write_bytes
from .tracking import METRICS, read_rows
from .validation import FACES, OTHERS, SIMILARITY

HEADING = "\n## Training\n"
LOSSES = (
    *("identity", "contrastive", "triplet", "threshold", "mann_whitney", "preservation", "background", "editing"),
    *("layout", "semantic", "localisation", "increment", "words", "values"),
)
SETTINGS = {
    "temperature": ("contrastive", "mann_whitney"),
    "margin": ("triplet",),
    "positive_threshold": ("threshold",),
    "negative_threshold": ("threshold",),
}
"""Settings that by default follow from the statistics of the face encoder -> losses that read them."""

LORA_ALONE = """\
---
library_name: diffusers
tags:
- idgen
- lora
- text-to-image
---

# LoRA

Load it with `pipe.load_lora_weights("<this folder or repository>")`.
"""
BESIDE_IDENTITY = ("aesthetic", "structure", "preservation", "denoising")


def describe_training(output_dir: Path, manifest: Manifest, config: dict[str, Any], updates: int) -> None:
    """Add the training and the last validation to the model card of a finished adapter.

    Args:
        output_dir: Folder of the run.
        manifest: Manifest of its shards.
        config: Configuration of the run, as a dictionary.
        updates: Updates of the adapter's weights.
    """
    card = output_dir / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else LORA_ALONE
    text = text.split(HEADING)[0].rstrip("\n")
    base = config["base"]
    if base != "tiny":  # diffusers cannot load this name
        text = text.replace("<base model>", base)
    rows = read_rows(output_dir / METRICS)
    train = manifest.splits.get("train", {})
    table = {
        "base model": base,
        "data": f"{train.get('usable', 0)} photos of {train.get('people', 0)} people",
        "face encoder of data and losses": manifest.encoder,
        "updates": f"{updates} of {config['loop']['train_batch_size']} samples per process",
        **_stage(config),
        **_measured(rows),
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    licence = "The adapter's licence depends on its training photos and its base model; state it before publishing."
    text = f"{text}\n{HEADING}\n| | |\n| --- | --- |\n{lines}\n\n{licence}\n"
    write_bytes(card, text.encode(), TrainingError)


def _stage(config: dict[str, Any]) -> dict[str, str]:
    if "losses" in config:
        losses = config["losses"]
        used = [f"{name} {losses[name]:g}" for name in LOSSES if losses[name]]
        read = {name for name, by in SETTINGS.items() if any(losses[loss] for loss in by)}
        settings = [f"{name} {losses[name]:.3g}" for name in SETTINGS if name in read and losses[name] is not None]
        told = {"settings of losses": ", ".join(settings)} if settings else {}
        return {"losses": ", ".join(["denoising 1", *used]), **told}
    rollout = config["rollout"]
    weights = {"identity": rollout["identity_weight"], **{name: rollout.get(name, 0.0) for name in BESIDE_IDENTITY}}
    if rollout["own"]:
        weights[rollout["own"].rpartition(":")[-1]] = rollout["own_weight"]
    used = ", ".join(f"{name} {weight:g}" for name, weight in weights.items() if weight)
    return {"reward": f"{used}, by {rollout['method']}", "from": str(config["id_adapter"] or "nothing")}


def _measured(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The last validation, on people of the validation split."""
    last = next((row for row in reversed(rows) if FACES in row), {})
    return {
        f"similarity to unseen people, {name.removeprefix(SIMILARITY)}": f"{value:.3f}{_others(last, name)}"
        for name, value in last.items()
        if name.startswith(SIMILARITY) and value is not None
    }


def _others(row: dict[str, float], name: str) -> str:
    """The similarity to other people than the one drawn, as a baseline."""
    value = row.get(name.replace(SIMILARITY, OTHERS))
    return "" if value is None else f" (to other people {value:.3f})"
