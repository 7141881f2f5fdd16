"""`Restorer`: a ControlNet that reads a damaged photo, and the identity scale that suits its damage."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.modeling_utils import ModelMixin as ModelMixin  # diffusers looks here when it opens a pipeline

from ..checkpoints import native
from ..checkpoints.model_card import card_head
from ..errors import CheckpointError
from ..files import read_json
from ..typed import arguments
from .hub_mixin import HubMixin
from .scale import ScaleSchedule

CURVE = "id_scale.json"

_CARD = """\
# Restorer

Restores damaged photos of faces, with the person from other photos:
`pipe.restore("old.jpg", id_embeds=anna, restorer=Restorer.from_pretrained("{place}"))`.

The identity scale follows the damage of the photo, which `idgen.faces.measure_degradation` measures:

| degradation | scale in the first half of the steps | in the second half |
| --- | --- | --- |
{rows}

A restored face is made up where the photo shows nothing: it is no evidence. Restore photos of people only with their
consent.
"""


@dataclass(frozen=True)
class IdScaleCurve:
    """Identity scale by degradation, linear between the points and constant outside of them (RestorerID's adaptive
    scale, arXiv 2411.14125, fitted on a grid).

    Attributes:
        degradation: Rising values in [0, 1].
        early: Scale in the first half of the steps, at each of them.
        late: Scale in the second half.

    Raises:
        ValueError: The lists have different lengths, degradations do not rise, or a scale is negative.
    """

    degradation: Sequence[float] = (0.0,)
    early: Sequence[float] = (0.8,)
    late: Sequence[float] = (0.8,)

    def __post_init__(self) -> None:
        points = list(self.degradation)
        if not points or not len(points) == len(self.early) == len(self.late):
            raise ValueError("A curve needs as many early and late scales as degradations, at least one.")
        if sorted(set(points)) != points or not all(math.isfinite(x) and x >= 0 for x in (*self.early, *self.late)):
            raise ValueError("The degradations of a curve must rise, and its scales be finite and not negative.")

    def at(self, degradation: float) -> tuple[float, float]:
        """The scale in the first and in the second half of the steps."""
        return tuple(float(np.interp(degradation, self.degradation, part)) for part in (self.early, self.late))  # pyright: ignore

    def schedule(self, degradation: float) -> ScaleSchedule:
        """The identity scale over the steps."""
        early, late = self.at(degradation)
        return ScaleSchedule(function=lambda progress: early if progress < 0.5 else late)


class Restorer(HubMixin, ControlNetModel):  # pyright: ignore[reportIncompatibleMethodOverride]
    """A ControlNet that reads a damaged face, cut out and enlarged to the size of the picture, and text.

    It knows nobody: the person comes from an identity adapter beside it (Dual-Pivot Tuning, arXiv 2312.17234, keeps
    both apart too). `idgen train restorer` trains one.

    Attributes:
        curve: Identity scale by degradation.
    """

    curve: IdScaleCurve = IdScaleCurve()

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # pyright: ignore
        """Write `config.json`, the weights as safetensors, the curve and a model card, atomically."""

        def save(folder: Path, **options: Any) -> None:
            ControlNetModel.save_pretrained(self, folder, **options)
            curve = {name: list(values) for name, values in asdict(self.curve).items()}
            (folder / CURVE).write_text(json.dumps(curve), encoding="utf-8")

        native.save_pretrained(save, save_directory, self._card(Path(save_directory).name), **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Self:
        """Load a restorer from a folder or from the hub; arguments as in diffusers (`subfolder`, `revision`, `token`).

        Raises:
            CheckpointError: It cannot be found, is not safetensors, has missing or unexpected tensors, or its curve is
                damaged.
        """
        place = pretrained_model_name_or_path
        made = native.load_pretrained(cls, super().from_pretrained, place, known_only=True, **kwargs)
        if (file := native.find_file(place, CURVE, **kwargs)) is not None:
            values = read_json(file)
            try:
                made.curve = IdScaleCurve(**arguments(IdScaleCurve, values, f"'{file}'", CheckpointError))
            except ValueError as error:
                raise CheckpointError(f"'{file}' is damaged: {error}") from error
        return made

    def _card(self, place: str) -> str:
        curve = self.curve
        rows = zip(curve.degradation, curve.early, curve.late, strict=True)
        return card_head("restoration") + _CARD.format(
            place=place, rows="\n".join(f"| {d:.2f} | {e:.2f} | {n:.2f} |" for d, e, n in rows)
        )
