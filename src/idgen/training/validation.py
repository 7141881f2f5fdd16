"""Pictures on fixed prompts and people while a run goes on, and how like they are to whom they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..adapter import IdentityAdapter
from ..errors import TrainingError
from ..faces import FaceDetector, FaceEncoder
from ..files import write_whole
from ..identity import Identity
from .base import BaseModel

GAP = 2


class Validation:
    """Draw everybody under every prompt, always from the same noise.

    Args:
        base: Of the run.
        adapter: Under training; a copy of it draws, so that its weights keep their type.
        people: Whom to draw, each with an identity of every encoder: its name → `Identity`. The adapter's own is
            needed; the others are only compared with.
        prompts: What the pictures show; `<id>` where the adapter has words.
        detector: Finds the faces in them.
        encoders: Name → encoder; one that the training never sees says more than the one it is trained on.
        folder: Where the contact sheets go.
        steps: Denoising steps.
        guidance_scale: How closely the prompt is followed.
        seed: Of the noise.
        show: Given the number of updates and (height, width, 3) uint8 pictures, a row for each person.
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
        show: Callable[[int, list[list[np.ndarray]]], None] | None = None,
    ) -> None:
        self.base, self.adapter, self.people, self.prompts = base, adapter, people, prompts
        self.detector, self.encoders, self.folder = detector, encoders, folder
        self.steps, self.guidance_scale, self.seed, self.show = steps, guidance_scale, seed, show

    def __call__(self, step: int) -> dict[str, float]:
        """Draw, write `step-….png` with a row for each person, and measure.

        Returns:
            The share of pictures with a face; by each encoder the mean cosine to the reference, where a picture
            without a face counts as 0, and the same to the other people, which says what the first is worth.
        """
        pictures = self._draw()
        self._write_sheet(pictures, self.folder / f"step-{step:06d}.png")
        if self.show is not None:
            self.show(step, pictures)
        found = [[self._largest(picture) for picture in row] for row in pictures]
        faces = [face is not None for row in found for face in row]
        results = {"validation/faces": float(np.mean(faces))}
        for name, encoder in self.encoders.items():
            people = torch.stack([person[name].embedding(normalised=True) for person in self.people])
            own, others = [], []
            for i, (row, points) in enumerate(zip(pictures, found, strict=True)):
                for picture, landmarks in zip(row, points, strict=True):
                    cosines = self._cosines(encoder, picture, landmarks, people)
                    own.append(cosines.pop(i))
                    others += cosines
            results[f"validation/similarity/{name}"] = float(np.mean(own))
            if others:
                results[f"validation/others/{name}"] = float(np.mean(others))
        return results

    def _draw(self) -> list[list[np.ndarray]]:
        """A row of (height, width, 3) uint8 pictures for each person."""
        pipeline: Any = self.base.pipeline
        copy = IdentityAdapter.from_config(self.adapter.config)
        assert isinstance(copy, IdentityAdapter)
        copy.load_state_dict(self.adapter.state_dict())
        progress = getattr(pipeline, "_progress_bar_config", {})
        pipeline.set_progress_bar_config(disable=True)
        pipeline.load_id_adapter(copy.eval())
        try:
            return [self._row(pipeline, person[self.adapter.config["encoder"]]) for person in self.people]
        finally:
            pipeline.unload_id_adapter()
            pipeline.set_progress_bar_config(**progress)

    @torch.no_grad()
    def _row(self, pipeline: Any, person: Identity) -> list[np.ndarray]:
        latents = pipeline(
            list(self.prompts),
            id_embeds=person,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            generator=[torch.Generator().manual_seed(self.seed + i) for i in range(len(self.prompts))],
            output_type="latent",
        ).images
        images = self.base.decode(latents).clamp(0, 1).permute(0, 2, 3, 1)
        return list((images * 255).round().to(torch.uint8).cpu().numpy())

    def _largest(self, picture: np.ndarray) -> np.ndarray | None:
        faces = self.detector.detect(picture)
        return max(faces, key=lambda face: face.area).landmarks if faces else None

    @staticmethod
    def _cosines(
        encoder: FaceEncoder, picture: np.ndarray, landmarks: np.ndarray | None, people: torch.Tensor
    ) -> list[float]:
        """To each of the people, (people, dim)."""
        if landmarks is None:
            return [0.0] * len(people)
        found = torch.from_numpy(encoder.embed(encoder.crop(picture, landmarks)[None])[0])
        return torch.cosine_similarity(found[None], people).tolist()

    @staticmethod
    def _write_sheet(pictures: list[list[np.ndarray]], file: Path) -> None:
        height, width = pictures[0][0].shape[:2]
        sheet = Image.new("RGB", (len(pictures[0]) * (width + GAP), len(pictures) * (height + GAP)), "white")
        for y, row in enumerate(pictures):
            for x, picture in enumerate(row):
                sheet.paste(Image.fromarray(picture), (x * (width + GAP), y * (height + GAP)))
        with write_whole(file, TrainingError) as new:
            sheet.save(new, Image.registered_extensions()[file.suffix])
