"""Draw the picture of people.md. Everybody in it is invented.

python docs/several.py docs/images/ several/after/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import tyro
from moves import GAP
from PIL import Image

from idgen import Identity, load_tiny

SIDE = 128


def main(
    output: tyro.conf.Positional[Path],
    adapter: tyro.conf.Positional[Path],
    seeds: tuple[int, ...] = (3, 8, 11),
    steps: int = 12,
) -> None:
    """Write several.webp: in each row two people, and both in one picture without masks, in both orders.

    Args:
        output: Folder for the picture.
        adapter: Adapter for the built-in model that places two people, of `benchmarks/several.py`.
        seeds: Seeds of the invented people; each is drawn with the next one.
        steps: Denoising steps.
    """
    pipe: Any = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    config = pipe.id_adapters["default"].config
    people = [Identity.random(config["encoder"], config["embedding_dim"], seed=seed) for seed in seeds]

    def draw(*shown: Identity) -> Image.Image:
        prompt = "a photo of a face" if len(shown) == 1 else "a photo of a face and a face"
        size = {"width": SIDE * len(shown), "height": SIDE, "num_inference_steps": steps, "guidance_scale": 3.0}
        return pipe(prompt, id_embeds=list(shown), **size, generator=torch.Generator().manual_seed(0)).images[0]

    alone = [draw(person) for person in people]
    pipe.load_id_adapter(adapter)
    sheet = Image.new("RGB", (6 * (SIDE + GAP) - GAP, len(people) * (SIDE + GAP) - GAP), "white")
    for row, first in enumerate(people):
        other = (row + 1) % len(people)
        shown = [alone[row], alone[other], draw(first, people[other]), draw(people[other], first)]
        for column, picture in zip((0, 1, 2, 4), shown, strict=True):
            sheet.paste(picture, (column * (SIDE + GAP), row * (SIDE + GAP)))
    sheet.save(output / "several.webp", quality=85)


if __name__ == "__main__":
    tyro.cli(main)
