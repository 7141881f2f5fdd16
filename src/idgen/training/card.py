"""What the model card says of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.manifest import Manifest
from ..errors import TrainingError
from ..files import write_bytes
from .metrics import NAME as METRICS
from .metrics import read_rows

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
"""Settings that follow from the face encoder unless they are given → losses that read them."""

LORA_ALONE = """\
---
library_name: diffusers
tags:
- idgen
- lora
- text-to-image
---

# LoRA

`pipe.load_lora_weights("<this folder or repository>")` lets the base model draw with it.
"""
OWN, OTHERS = "validation/similarity/", "validation/others/"
BESIDE_IDENTITY = ("aesthetic", "structure", "preservation", "denoising")


def describe_training(output_dir: Path, manifest: Manifest, config: dict[str, Any], updates: int) -> None:
    """Add to the card of a finished adapter what it was trained with, and what was measured last.

    Args:
        output_dir: Of the run.
        manifest: Of its shards.
        config: Of the run.
        updates: How many the adapter has had.
    """
    card = output_dir / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else LORA_ALONE
    text = text.split(HEADING)[0].rstrip("\n")
    base = config["base"]
    if base != "tiny":  # which is no name that diffusers knows
        text = text.replace("<base model>", base)
    rows = read_rows(output_dir / METRICS)
    train = manifest.splits.get("train", {})
    table = {
        "base model": base,
        "data": f"{train.get('usable', 0)} photos of {train.get('people', 0)} people",
        "face encoder of data and losses": manifest.encoder,
        "updates": f"{updates} of {config['loop']['train_batch_size']} samples a process",
        **_stage(config),
        **_measured(rows),
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    licence = "The adapter's licence follows from its photos and its base model; state it before you publish it."
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
    """The last validation; people of the validation split, who are not trained on."""
    last = next((row for row in reversed(rows) if "validation/faces" in row), {})
    return {
        f"similarity to unseen people, {name.removeprefix(OWN)}": f"{value:.3f}{_others(last, name)}"
        for name, value in last.items()
        if name.startswith(OWN) and value is not None
    }


def _others(row: dict[str, float], name: str) -> str:
    """The similarity to the people who are not drawn, which says what the other one is worth."""
    value = row.get(name.replace(OWN, OTHERS))
    return "" if value is None else f" (to the others {value:.3f})"
