"""Draw the sheet of the README: people in several prompts, with similarities, by the built-in model.

    python benchmarks/sheet.py docs/images/people.webp --eval-encoder imagenet:MOBILEFACENET.onnx

The first row is a photo in the public domain (Eileen Collins, NASA). The other people do not exist: `Identity.random`
invents them, the model draws a portrait of each, and this portrait is the reference from which the row is drawn. Seeds
are 0, 1, 2 … from left to right; none is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image, ImageDraw, ImageFont
from skimage import data

import idgen
from idgen import FaceAnalyzer, Identity
from idgen.data.framing import aligned_framing
from idgen.faces import open_encoder

PROMPTS = (
    "a photo of a face",
    "a photo of <id>",
    "a sepia photo of a face",
    "an oil painting of a face",
    "a pencil sketch of a face",
    "a cartoon of a face",
)
SIDE, LEFT, HEAD, FOOT = 160, 112, 26, 20
"""Of a picture, of the names of rows, of the names of columns and of captions, in pixels."""


def labelled_sheet(
    rows: dict[str, Sequence[Image.Image]],
    columns: Sequence[str] = (),
    captions: dict[str, Sequence[str]] | None = None,
) -> Image.Image:
    """Rows of square pictures with names of rows and columns, and a caption under each picture."""
    head, foot = HEAD * bool(columns), FOOT * bool(captions)
    step = SIDE + 4, SIDE + foot + 4
    count = max(len(pictures) for pictures in rows.values())
    sheet = Image.new("RGB", (LEFT + count * step[0], head + len(rows) * step[1]), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for x, column in enumerate(columns):
        pen.text((LEFT + x * step[0] + SIDE // 2, head // 2), column, "black", font, anchor="mm")
    for y, (name, pictures) in enumerate(rows.items()):
        top = head + y * step[1]
        pen.multiline_text((6, top + SIDE // 2), name, "black", font, anchor="lm")
        for x, picture in enumerate(pictures):
            left = LEFT + x * step[0]
            sheet.paste(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
            if captions is not None:
                middle = left + SIDE // 2, top + SIDE + foot // 2
                pen.text(middle, captions[name][x], "black", font, anchor="mm")
    return sheet


def references(pipe: Any, invented: int) -> dict[str, Image.Image]:
    """The astronaut's face, and drawn portraits of people who do not exist, cut as the model's pictures."""
    framing, analyzer = aligned_framing("tiny"), FaceAnalyzer()
    assert framing is not None
    photo = data.astronaut()
    face = analyzer.find(photo)
    found = {"a photo": Image.fromarray(framing.cut(photo, tuple(face.box), face.landmarks))}
    for seed in range(invented):
        nobody = Identity.random(analyzer.encoder.name, analyzer.encoder.dim, seed=seed)
        found[f"invented {seed + 1}"] = draw(pipe, ["a photo of a face"], nobody, first_seed=100 + seed)[0]
    return found


def draw(pipe: Any, prompts: Sequence[str], identity: Identity, first_seed: int = 0) -> list[Image.Image]:
    generators = [torch.Generator().manual_seed(first_seed + i) for i in range(len(prompts))]
    options = {"num_inference_steps": 25, "guidance_scale": 3.0, "id_embeds": identity}
    return pipe(list(prompts), generator=generators, **options).images


def main(output: Path, /, eval_encoder: str, invented: int = 4) -> None:
    """Write the sheet.

    Args:
        output: WebP or PNG file.
        eval_encoder: Face encoder that training has not used, as for `idgen evaluate`. It measures the similarities.
        invented: Number of people who do not exist.
    """
    pipe: Any = idgen.load_tiny()
    pipe.set_progress_bar_config(disable=True)
    judge = FaceAnalyzer(encoder=open_encoder(eval_encoder))
    people = references(pipe, invented)
    known = np.stack([judge.find(np.asarray(picture)).embedding for picture in people.values()])
    rows: dict[str, Sequence[Image.Image]] = {}
    captions: dict[str, Sequence[str]] = {}
    for i, (name, reference) in enumerate(people.items()):
        pictures = draw(pipe, PROMPTS, pipe.encode_identity(reference))
        rows[name] = [reference, *pictures]
        captions[name] = ["reference", *(caption(judge, picture, known, i) for picture in pictures)]
    labelled_sheet(rows, ("", *(prompt.removeprefix("a photo of a face, ") for prompt in PROMPTS)), captions).save(
        output
    )


def caption(judge: FaceAnalyzer, picture: Image.Image, known: np.ndarray, person: int) -> str:
    """Similarity to the reference, and the mean similarity to the other references."""
    faces = judge.analyze(np.asarray(picture))
    if not faces:
        return "no face found"
    cosines = known @ faces[0].embedding / np.linalg.norm(known, axis=1) / np.linalg.norm(faces[0].embedding)
    return f"{cosines[person]:.2f} (others {np.delete(cosines, person).mean():.2f})"


if __name__ == "__main__":
    tyro.cli(main)
