"""Draw the pictures of editing.md. Everybody in them is invented.

python docs/edited.py docs/images/ --restorer restorer/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from moves import write
from PIL import Image

from idgen import Identity, load_tiny
from idgen.adapter import Restorer
from idgen.faces import Degradation
from idgen.pipelines.face_crop import crop_framing

DAMAGE = Degradation(blur=1, shrink=8, jpeg=40)


def main(
    output: tyro.conf.Positional[Path],
    restorer: Path | None = None,
    seeds: tuple[int, ...] = (3, 8, 11),
    steps: int = 20,
) -> None:
    """Write swapped.webp: in each row a picture, a person, and the picture with their face. With a restorer also
    restored.webp: a picture, its damaged copy, and that copy restored without and with the person.

    Args:
        output: Folder for the pictures.
        restorer: Restorer for the built-in model.
        seeds: Seeds of the invented people.
        steps: Denoising steps.
    """
    pipe: Any = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    config = pipe.id_adapters["default"].config
    people = [Identity.random(config["encoder"], config["embedding_dim"], seed=seed) for seed in seeds]

    def seeded(seed: int) -> dict[str, Any]:
        return {"generator": torch.Generator().manual_seed(seed), "num_inference_steps": steps}

    def draw(person: Identity, seed: int) -> Image.Image:
        return pipe("a photo of <id>", id_embeds=person, guidance_scale=3.0, **seeded(seed)).images[0]

    drawn = [draw(person, seed) for seed, person in zip(seeds, people, strict=True)]
    rows = []
    for i, picture in enumerate(drawn):
        other = (i + 1) % len(people)
        edited = pipe.swap(picture.resize((256, 256)), id_embeds=people[other], face="largest", **seeded(i))
        rows.append([picture, drawn[other], edited.images[0].resize(picture.size)])
    write(rows, output / "swapped.webp")
    if restorer is None:
        return
    net, rows = Restorer.from_pretrained(restorer), []
    points = crop_framing(pipe).template  # where the model draws faces
    for i, (picture, person) in enumerate(zip(drawn, people, strict=True)):
        damaged = DAMAGE(np.asarray(picture), seed=i)
        without, restored = (
            pipe.restore(damaged, restorer=net, id_embeds=person, landmarks=points, **scale, **seeded(i)).images[0]
            for scale in ({"id_scale": 0.0}, {})
        )
        rows.append([picture, Image.fromarray(damaged), without, restored])
    write(rows, output / "restored.webp")


if __name__ == "__main__":
    tyro.cli(main)
