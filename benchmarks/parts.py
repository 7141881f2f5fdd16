"""What an adapter of parts of the face adds to the likeness, beside the identity adapter of the built-in model.

    idgen prepare photos/ --output shards/ --encoder dlib-resnet-v1 parts/dlib-resnet-v1
    idgen train denoise --train_data_dir shards/ --output_dir parts/ --resolution 128 --encoder parts/dlib-resnet-v1 \\
        --projection rows rows=4 hidden_dim=256 depth=2 --beside tiny --max_train_steps 150
    python benchmarks/parts.py people/ parts/ --judge imagenet:mobilefacenet.onnx

`people/` has a folder of two photos for each person whom no training has seen: the first is the reference, the second
the truth. An adapter of another encoder, trained in the same way, shows what the further training alone is worth.
Pictures of all rows are drawn from the same noise; intervals are bootstrapped over people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image
from placement import PROMPT, Measured, cell

import idgen

BATCH = 8
HEAD = ("adapter beside that of the built-in model", "reads", "id_scale", "similarity", "difference to without it")


def draw(pipe: Any, people: list[Any], beside: list[Any], scale: float, steps: int) -> list[Image.Image]:
    """A picture of each person."""
    pictures = []
    for i in range(0, len(people), BATCH):
        shown = {"default": people[i : i + BATCH], "beside": beside[i : i + BATCH]}
        count = len(shown["default"])
        pictures += pipe(
            [PROMPT] * count,
            id_embeds=shown,
            id_scale={"beside": scale},
            num_inference_steps=steps,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(i + j) for j in range(count)],
        ).images
    return pictures


def main(
    people: Annotated[Path, tyro.conf.Positional],
    adapters: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    judge: str,
    scales: tuple[float, ...] = (0.5, 1.0),
    count: int = 32,
    steps: int = 8,
    sheet: Path | None = None,
) -> None:
    """Draw, measure and print the table.

    Args:
        people: Folder with a folder of two photos for each person.
        adapters: Folders of adapters that were trained with `--beside tiny`.
        judge: Face encoder that no training has used.
        scales: Values of `id_scale` for these adapters.
        count: People.
        steps: Denoising steps.
        sheet: File for the pictures: a row without the adapters, and one for each row of the table.
    """
    measured = Measured(people, judge, count)
    print(f"{len(measured.people)} people\n| {' | '.join(HEAD)} |\n{'| --- ' * len(HEAD)}|")
    without, shown = None, []
    for folder in adapters:
        pipe: Any = idgen.load_tiny()
        pipe.set_progress_bar_config(disable=True)
        pipe.load_id_adapter(folder, adapter_name="beside")
        beside = [pipe.encode_identity(each, face="largest", adapter_name="beside") for each in measured.photos]
        for scale in scales if without is not None else (0.0, *scales):
            pictures = draw(pipe, measured.people, beside, scale, steps)
            found = measured.similarity(pictures)
            if without is None:
                without = found
            reads = pipe.id_adapters["beside"].config["encoder"]
            cells = [cell(found), cell(found - without)] if scale else [cell(found), "–"]
            print(f"| {' | '.join([folder.name, reads, f'{scale:g}', *cells])} |", flush=True)
            shown.append(np.hstack([np.asarray(each) for each in pictures]))
    if sheet is not None:
        Image.fromarray(np.vstack(shown)).save(sheet)


if __name__ == "__main__":
    tyro.cli(main)
