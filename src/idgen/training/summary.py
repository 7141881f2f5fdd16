"""The section "Training" of a model card: what an adapter was trained with, and what was measured."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.model_card import with_places
from ..convert import NET
from ..data.manifest import Manifest
from ..errors import TrainingError
from ..evaluation.scores import yardstick
from ..faces import register_encoder
from ..faces.expression import EXPRESSION
from ..files import write_bytes
from ..losses import Weight
from ..losses.settings import WeightedConfig
from .config import DenoisingConfig, RewardConfig
from .encoders import RunEncoders
from .methods import BackpropConfig, SwapConfig
from .step import CONFIG
from .tracking import METRICS, read_rows
from .trainable import LORA_FILE
from .validation import FACES, OTHERS, SIMILARITY

HEADING = "\n## Training\n"
LORA_ALONE = """\
---
library_name: diffusers
tags:
- idgen
- lora
- text-to-image
---

# LoRA

Load it with `pipe.load_lora_weights("{place}")`.
"""


def describe_training(
    output_dir: Path,
    manifest: Manifest,
    config: DenoisingConfig | RewardConfig,
    updates: int,
) -> None:
    """Add the training and the last validation to the model card of a finished adapter.

    Args:
        output_dir: Folder of the run.
        manifest: Manifest of its shards.
        config: Configuration of the run.
        updates: Updates of the adapter's weights.
    """
    card = output_dir / "README.md"
    text = card.read_text(encoding="utf-8") if card.exists() else LORA_ALONE.format(place=output_dir.name)
    text = text.split(HEADING)[0].rstrip("\n")
    base = config.base
    text = with_places(text, output_dir.name, base)
    rows = read_rows(output_dir / METRICS)
    train = manifest.splits.get("train", {})
    table = {
        "base model": base,
        "data": f"{train.get('usable', 0)} photos of {train.get('people', 0)} people",
        "groups of the people": _groups(manifest.groups.get("train", {})),
        **_face_encoders(config, RunEncoders.of(config, manifest)),
        "updates": f"{updates} of {config.loop.train_batch_size} samples per process",
        **_stage(config),
        **measured(rows),
    }
    lines = "\n".join(f"| {name} | {value} |" for name, value in table.items())
    licence = "The adapter's licence depends on its training photos and its base model; state it before publishing."
    text = f"{text}\n{HEADING}\n| | |\n| --- | --- |\n{lines}\n\n{licence}\n"
    write_bytes(card, text.encode(), TrainingError)


def closing(config: DenoisingConfig | RewardConfig) -> list[str]:
    """Lines for the end of a run: what was made, how good it is, and the next commands."""
    folder = config.output_dir
    kind, commands = _use(config)
    is_adapter = (folder / CONFIG).exists()
    made = [kind] if is_adapter else []
    made += ["a LoRA"] if (folder / LORA_FILE).exists() else []
    made += ["an IdentityNet"] if (folder / NET).exists() else []
    lines = [f"'{folder}' holds {' and '.join(made)} for {config.base}; README.md there is its model card."]
    lines += [f"{name}: {value}." for name, value in measured(read_rows(folder / METRICS)).items()]
    if sheets := sorted((folder / "validation").glob("step-*.png")):
        lines.append(f"Pictures of people who were not trained on: {sheets[-1]}")
    if is_adapter:
        lines += [f"{start} {each}" for start, each in zip(("Next:", "     "), commands, strict=False)]
    return lines


def _use(config: DenoisingConfig | RewardConfig) -> tuple[str, list[str]]:
    """What kind of adapter was made, and the next commands."""
    base, folder = shlex.quote(config.base), shlex.quote(str(config.output_dir))
    beside = config.adapter.beside if isinstance(config, DenoisingConfig) else None
    draw = f'idgen generate "a photo of a face" --base {base}'
    if config.data.encoder == EXPRESSION:
        person = "" if beside == "tiny" else f" --id-adapter {shlex.quote(beside or 'ADAPTER')}"
        use = f"--expression-adapter {folder} --expression PHOTO"
        return "an expression adapter", [f"{draw}{person} {use} --photo PHOTO"]
    if beside is not None:
        load = f'pipe.load_id_adapter({str(config.output_dir)!r}, adapter_name="beside")'
        return f"an adapter beside that of {beside}", [f"{load} in Python, then pipe(…, id_image=PHOTO)"]
    judge = (
        f"idgen evaluate --base {base} --id-adapter {folder} --identities PEOPLE/ --prompts {_prompts(config.base)}"
    )
    return "an identity adapter", [f"{draw} --id-adapter {folder} --photo PHOTO", judge]


def _prompts(base: str) -> str:
    """The prompt set for a base model."""
    return "tiny" if base == "tiny" else "fastcomposer"


def _face_encoders(config: DenoisingConfig | RewardConfig, encoders: RunEncoders) -> dict[str, str]:
    """The encoders of adapter, losses or rewards, and of the validation, which training never uses."""
    terms = "losses" if isinstance(config, DenoisingConfig) else "rewards"
    found = {
        "face encoder of the adapter": encoders.adapter,
        f"face encoders of the {terms}": ", ".join(encoders.compared),
    }
    judge = config.validation.eval_encoder
    return found if judge is None else {**found, "face encoder of the validation only": register_encoder(judge)}


def _stage(config: DenoisingConfig | RewardConfig) -> dict[str, str]:
    if isinstance(config, DenoisingConfig):
        beside = {} if config.adapter.beside is None else {"beside the adapter": config.adapter.beside}
        return {**beside, "losses": _listed(config.losses.active), **_settings(config.losses)}
    method = config.rollout
    found = {"rewards": f"{_listed(config.rewards.active)}, by {method.method}"}
    if isinstance(method, BackpropConfig):
        weights = {"preservation": method.preservation, "denoising": method.denoising}
        further = "supervision" if isinstance(method, SwapConfig) else "style"
        weights[further] = getattr(method, further)
        losses = {name: Weight(weight) for name, weight in weights.items()}
        found["losses"] = _listed({name: weight for name, weight in losses.items() if weight.value}) or "none"
    return {**found, **_settings(config.rewards), "from": config.id_adapter or "nothing"}


def _listed(weights: Mapping[str, Weight]) -> str:
    """As on the command line, without the folders of files."""
    return ", ".join(f"{name.rpartition('/')[-1]}={weight}" for name, weight in weights.items())


def _settings(config: WeightedConfig) -> dict[str, str]:
    """Numbers that the active losses or rewards are made with."""
    values = {name: getattr(config, name) for name in sorted(config.read_settings)}
    numbers = [f"{name}={value:.3g}" for name, value in values.items() if isinstance(value, float)]
    return {"settings": ", ".join(numbers)} if numbers else {}


def _groups(people: Mapping[str, int]) -> str:
    """The groups of the training people by size."""
    named = sorted(((count, group) for group, count in people.items() if group), reverse=True)
    if not named:
        return "not known"
    unknown = [f"{people['']} not known"] if "" in people else []
    return ", ".join([f"{count} {group}" for count, group in named] + unknown)


def measured(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The last validation, on people of the validation split."""
    last = next((row for row in reversed(rows) if FACES in row), {})
    return {
        f"similarity to unseen people, {name.removeprefix(SIMILARITY)}": f"{value:.3f}{_others(last, name)}"
        for name, value in last.items()
        if name.startswith(SIMILARITY) and value is not None
    }


def _others(row: dict[str, float], name: str) -> str:
    """The similarity to other people than the one drawn, and the threshold of the encoder if it is known."""
    value, match = row.get(name.replace(SIMILARITY, OTHERS)), yardstick(name.removeprefix(SIMILARITY)).match
    beside = [] if value is None else [f"to other people {value:.3f}"]
    beside += [] if match is None else [f"threshold {match:.3f}"]
    return f" ({', '.join(beside)})" if beside else ""
