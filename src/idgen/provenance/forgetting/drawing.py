"""Pictures of a report: drawn, and read by face encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from ...adapter import IdentityAdapter
from ...evaluation.judges import Embeddings, Judges, read_faces
from ...identity import Identity
from ...training.base import BaseModel

BATCH = 8


class Drawn(NamedTuple):
    """Pictures and their faces.

    Attributes:
        latents: (n, channels, height, width), as the UNet reads them.
        faces: Encoder → (n, dim), of unit length; NaN where no face was found.
    """

    latents: torch.Tensor
    faces: Embeddings


@dataclass(frozen=True, eq=False, kw_only=True)
class Painter:
    """Draws one picture of each identity, and reads the faces.

    Attributes:
        pipeline: Pipeline of the base model; adapters are loaded into it.
        judges: Face detector and encoders.
        prompts: Prompts that take turns.
        steps: Denoising steps.
        guidance_scale: Guidance scale.
    """

    pipeline: Any
    judges: Judges
    prompts: Sequence[str]
    steps: int
    guidance_scale: float

    def __call__(
        self,
        adapter: IdentityAdapter,
        people: Sequence[Identity],
        seed: int,
        prompts: Sequence[str] = (),
        id_scale: float | None = None,
    ) -> Drawn:
        """Draw each person with an adapter; the same seed gives the same noise for the same place in the list."""
        self.pipeline.load_id_adapter(adapter, adapter_name="forgetting")
        self.pipeline.set_progress_bar_config(disable=True)
        try:
            texts = [(prompts or self.prompts)[i % len(prompts or self.prompts)] for i in range(len(people))]
            starts = range(0, len(people), BATCH)
            latents = torch.cat(
                [self._draw(people[i : i + BATCH], texts[i : i + BATCH], seed + i, id_scale) for i in starts]
            )
        finally:
            self.pipeline.unload_id_adapter("forgetting")
        return Drawn(latents, self.read(latents))

    def read(self, latents: torch.Tensor) -> Embeddings:
        """Decode latents, and embed the largest face of each picture."""
        base = BaseModel(self.pipeline, self.pipeline.unet.dtype, self.pipeline.device)
        with torch.no_grad():
            pixels = [(255 * base.decode(part).clamp(0, 1)).round().byte().cpu() for part in latents.split(BATCH)]
        pictures = torch.cat(pixels).permute(0, 2, 3, 1).numpy()
        found = [read_faces(picture, None, self.judges)[0] for picture in pictures]
        return {name: np.concatenate([one[name] for one in found]) for name in self.judges.encoders}

    def _draw(
        self, people: Sequence[Identity], prompts: Sequence[str], seed: int, id_scale: float | None
    ) -> torch.Tensor:
        drawn: Any = self.pipeline(
            list(prompts),
            id_embeds=list(people),
            id_scale=id_scale,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            generator=[torch.Generator().manual_seed(seed + i) for i in range(len(people))],
            output_type="latent",
        )
        return drawn.images
