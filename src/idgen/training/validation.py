"""Validation: pictures of fixed people under fixed prompts, and the similarities in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..adapter import IdentityAdapter
from ..errors import TrainingError
from ..evaluation.judges import Embeddings, Judges, read_faces
from ..evaluation.metric import Faces, Picture
from ..evaluation.metrics import picture_values
from ..evaluation.similarity import cosine_similarity
from ..faces import FaceDetector, FaceEncoder
from ..files import write_whole
from ..identity import Identity
from .base import BaseModel

FACES, SIMILARITY, OTHERS = "validation/faces", "validation/similarity/", "validation/others/"
"""Names of the metrics; the last two are followed by the name of a face encoder."""
_NAMES = {"detection": "faces", "sim_ref": "similarity"}  # metrics that have another name in `idgen evaluate`

_GAP = 2


class Validation:
    """Draw each person with each prompt, always from the same noise, and measure the pictures.

    Args:
        base: Base model of the run.
        adapter: Adapter in training. A copy of it draws, so its weights keep their type.
        people: For each person an identity per face encoder: the encoder's name -> `Identity`. The identity of the
            adapter's own encoder is required to draw; the others are compared with.
        prompts: Prompts to draw each person with; they may hold `<id>` if the adapter has pseudo-words.
        detector: Finds the faces in the pictures.
        encoders: Name -> face encoder. An encoder that is not used in training gives an independent measurement.
        folder: Folder for the contact sheets.
        steps: Denoising steps.
        guidance_scale: Guidance scale.
        seed: Seed of the noise.
        references: For each person the identities to compare with, if they are not those that are drawn.
        beside: The frozen adapter that gives the person, if the one in training gives something else.
        show: Called with the number of updates and the (height, width, 3) uint8 pictures, a row per person.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter,
        people: Sequence[Mapping[str, Identity]],
        prompts: Sequence[str],
        detector: FaceDetector,
        encoders: Mapping[str, FaceEncoder],
        folder: Path,
        *,
        steps: int = 25,
        guidance_scale: float = 3.0,
        seed: int = 0,
        references: Sequence[Mapping[str, Identity]] | None = None,
        beside: IdentityAdapter | None = None,
        show: Callable[[int, list[list[np.ndarray]]], None] | None = None,
    ) -> None:
        self.base, self.adapter, self.beside, self.people, self.prompts = base, adapter, beside, people, prompts
        self.detector, self.encoders, self.folder = detector, encoders, folder
        self.steps, self.guidance_scale, self.seed, self.show = steps, guidance_scale, seed, show
        self.references = people if references is None else references

    def __call__(self, step: int) -> dict[str, float]:
        """Draw, write a contact sheet `step-….png` with a row per person, and measure.

        Returns:
            Means over the pictures of the rows of `idgen.evaluation.METRICS` that need no more than a picture and a
            reference: the share of pictures with a face and, for each encoder, the cosine to the reference of the
            person drawn. For each encoder also the mean cosine to the references of the other people. A picture
            without a face counts as a cosine of 0.
        """
        pictures = self._draw()
        self._write_sheet(pictures, self.folder / f"step-{step:06d}.png")
        if self.show is not None:
            self.show(step, pictures)
        values: dict[str, list[float]] = {}
        judges = Judges(detector=self.detector, encoders=self.encoders)
        references = [
            {name: person[name].embedding(normalised=True).numpy()[None] for name in self.encoders}
            for person in self.references
        ]
        for i, row in enumerate(pictures):
            others = [reference for j, reference in enumerate(references) if j != i]
            for pixels in row:
                for name, value in _measure(pixels, references[i], others, judges):
                    values.setdefault(name, []).append(value)
        return {name: float(np.mean(measured)) for name, measured in values.items()}

    def _draw(self) -> list[list[np.ndarray]]:
        """(height, width, 3) uint8 pictures, a row per person."""
        pipeline: Any = self.base.pipeline
        progress = getattr(pipeline, "_progress_bar_config", {})
        pipeline.set_progress_bar_config(disable=True)
        pipeline.load_id_adapter(_copied(self.adapter), adapter_name="trained")
        if self.beside is not None:
            pipeline.load_id_adapter(_copied(self.beside), adapter_name="beside")
        try:
            with torch.compiler.set_stance("force_eager"):  # to compile takes longer than a few pictures
                return [self._row(pipeline, person) for person in self.people]
        finally:
            pipeline.unload_id_adapter()
            pipeline.set_progress_bar_config(**progress)

    @torch.no_grad()
    def _row(self, pipeline: Any, person: Mapping[str, Identity]) -> list[np.ndarray]:
        adapters = {"trained": self.adapter, **({} if self.beside is None else {"beside": self.beside})}
        shown = {name: person[each.config["encoder"]] for name, each in adapters.items()}
        expression = shown.pop("trained") if self.adapter.reads_expression else None
        latents = pipeline(
            list(self.prompts),
            id_embeds=shown or None,
            expression_image=expression,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            generator=[torch.Generator().manual_seed(self.seed + i) for i in range(len(self.prompts))],
            output_type="latent",
        ).images
        images = self.base.decode(latents).clamp(0, 1).permute(0, 2, 3, 1)
        return list((images * 255).round().to(torch.uint8).cpu().numpy())

    @staticmethod
    def _write_sheet(pictures: list[list[np.ndarray]], file: Path) -> None:
        height, width = pictures[0][0].shape[:2]
        sheet = Image.new("RGB", (len(pictures[0]) * (width + _GAP), len(pictures) * (height + _GAP)), "white")
        for y, row in enumerate(pictures):
            for x, picture in enumerate(row):
                sheet.paste(Image.fromarray(picture), (x * (width + _GAP), y * (height + _GAP)))
        with write_whole(file, TrainingError) as new:
            sheet.save(new, Image.registered_extensions()[file.suffix])


def _copied(adapter: IdentityAdapter) -> IdentityAdapter:
    """An adapter of the same weights that is not attached."""
    copy = IdentityAdapter.from_config(adapter.config)
    assert isinstance(copy, IdentityAdapter)
    copy.load_state_dict(adapter.state_dict())
    return copy.eval()


def _measure(
    pixels: np.ndarray, reference: Embeddings, others: Sequence[Embeddings], judges: Judges
) -> Iterator[tuple[str, float]]:
    """Names and values of the metrics of one picture."""
    drawn, _ = read_faces(pixels, reference, judges)
    faces = {name: Faces(drawn=drawn[name], reference=reference[name]) for name in drawn}
    for column, value in picture_values(Picture(pixels=pixels, faces=faces)).items():
        name, *encoder = column.split("/", 1)
        yield "/".join(["validation", _NAMES.get(name, name), *encoder]), value
    for other in others:
        for name in drawn:
            yield f"{OTHERS}{name}", float(cosine_similarity(drawn[name], other[name])[0])
