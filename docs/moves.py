"""Draw the two pictures of attributes.md. Everybody in them is invented.

python docs/moves.py docs/images/ --expression-adapter expression/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import tyro
from PIL import Image

from idgen import Identity, load_tiny

AMOUNTS = {"smile": (-1.0, -0.5, 0.0, 0.5, 1.0), "age": (-1.0, -0.5, 0.0, 0.5, 1.0)}
GAP, TIMES = 4, 1


def main(
    output: tyro.conf.Positional[Path],
    expression_adapter: Path | None = None,
    seeds: tuple[int, ...] = (3, 8),
    scales: tuple[float, ...] = (0.0, 1.0, 1.5, 2.0),
    steps: int = 12,
) -> None:
    """Write moves.webp, a row for each attribute of each person, and with an adapter expressions.webp, whose rows show
    the picture that gives the expression, and the person with it at several scales.

    Args:
        output: Folder for the pictures.
        expression_adapter: Expression adapter for the built-in model.
        seeds: Seeds of the invented people.
        scales: Values of `expression_scale`.
        steps: Denoising steps.
    """
    pipe: Any = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    config = pipe.id_adapters["default"].config
    people = [Identity.random(config["encoder"], config["embedding_dim"], seed=seed) for seed in seeds]

    def draw(person: Identity, seed: int, **arguments: Any) -> Image.Image:
        generator = torch.Generator().manual_seed(seed)
        call: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": 3.0, "generator": generator}
        return pipe("a photo of <id>", id_embeds=person, **call, **arguments).images[0]

    rows = [
        [draw(person.moved(name, amount), seed) for amount in amounts]
        for seed, person in zip(seeds, people, strict=True)
        for name, amounts in AMOUNTS.items()
    ]
    write(rows, output / "moves.webp")
    if expression_adapter is None:
        return
    pipe.load_id_adapter(expression_adapter, adapter_name="expression")
    rows = []
    for amount in (1.5, -2.0):
        giver = draw(people[0].moved("smile", amount), seeds[0])
        shown = pipe.encode_identity(giver.resize((256, 256)), face="largest", adapter_name="expression")
        drawn = [draw(people[1], seeds[1], expression_image=shown, expression_scale=scale) for scale in scales]
        rows.append([giver, *drawn])
    write(rows, output / "expressions.webp")


def write(rows: list[list[Image.Image]], file: Path) -> None:
    """A sheet of pictures, enlarged, on white."""
    side = TIMES * rows[0][0].width
    sheet = Image.new("RGB", (len(rows[0]) * (side + GAP) - GAP, len(rows) * (side + GAP) - GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            large = picture.resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(large, (x * (side + GAP), y * (side + GAP)))
    sheet.save(file, quality=85)


if __name__ == "__main__":
    tyro.cli(main)
