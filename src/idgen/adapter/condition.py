"""What an adapter contributes to the UNet in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from ..errors import AdapterError
from .attention import IdentityBranch, KeysValues, Regions
from .fusion import Fusion
from .layers import module_key
from .persons import Person, Rows, rows_of_batch
from .scale import Scale, ScaleSchedule, layer_scale


class Acting(NamedTuple):
    """What the hooks read in one forward.

    Attributes:
        persons: Layer path → keys and values of each person; layers at scale 0 are missing.
        lora: Layer path → scale of the adapter's LoRA.
        regions: Where each person may appear.
        text: (batch,), factor on the layer's own attention.
    """

    persons: Mapping[str, list[KeysValues]]
    lora: Mapping[str, float]
    regions: Regions | None
    text: torch.Tensor | None


class Condition:
    """The persons of one call, with their keys and values, which are computed once, and how strongly they act.

    Args:
        branches: The adapter's branches by `module_key`.
        heads: Path of each cross-attention layer → attention heads.
        lora_paths: Paths of the layers with a LoRA.
        persons: Everybody in the picture.
        pictures: How many pictures the call draws, that is, the UNet's batch without guidance.
        scale: Read at each forward, so that it can change while the call runs.
        lora_scale: The same for the adapter's LoRA; `None` follows `scale`.
        masks: Where each person may appear, (height, width) in [0, 1] each.
        rows: Which parts of the UNet's batch are conditional; told from the batch size if not given.
        progress: Timestep → progress, from 0 (pure noise) to 1 (finished), for schedules.
        fusion: Factors on text and identity, in training.

    Raises:
        AdapterError: Persons, masks and pictures do not fit together.
    """

    def __init__(
        self,
        branches: nn.ModuleDict,
        heads: Mapping[str, int],
        lora_paths: Sequence[str],
        persons: Sequence[Person],
        pictures: int,
        *,
        scale: Callable[[], Scale],
        lora_scale: Callable[[], Scale | None],
        masks: Sequence[torch.Tensor] | None,
        rows: Callable[[], Rows] | None,
        progress: Callable[[float], float],
        fusion: Fusion | None,
    ) -> None:
        self.regions = regions_of(persons, masks)
        self._pictures, self._rows, self._progress = pictures, rows, progress
        self._scale, self._lora_scale = scale, lora_scale
        self._text = None if fusion is None else fusion.text
        self._has_graph = torch.is_grad_enabled()
        self._heads, self._lora_paths = heads, lora_paths
        self._single = {
            path: [
                person.keys_values(cast(IdentityBranch, branches[module_key(path)]), pictures) for person in persons
            ]
            for path in heads
        }
        if fusion is not None:
            for people in self._single.values():
                for i, (negative, positive) in enumerate(people):
                    weighted = positive.values * fusion.identity.to(positive.values)[:, None, None]
                    people[i] = negative, positive._replace(values=weighted)
        self._laid_out: dict[Rows, dict[str, list[KeysValues]]] = {}
        self._last: tuple[tuple[Rows, dict[str, float], dict[str, float]], Acting] | None = None

    def at(self, batch: int, timestep: Any) -> Acting:
        """What acts in a forward with this batch size, at this timestep.

        Raises:
            AdapterError: The batch is not the one that the call's pictures and guidance make.
        """
        rows = rows_of_batch(batch, self._pictures) if self._rows is None else self._rows()
        if batch != len(rows) * self._pictures:
            raise AdapterError(
                f"The UNet was called with a batch of {batch}; {self._pictures} picture(s) with guidance make "
                f"{len(rows) * self._pictures}. The pipeline batches its calls in a way that idgen does not know."
            )
        scale, lora_scale = self._scale(), self._lora_scale()
        levels = self._levels(scale, timestep, self._heads)
        lora = self._levels(scale if lora_scale is None else lora_scale, timestep, self._lora_paths)
        if self._last is None or self._last[0] != (rows, levels, lora):
            self._last = (rows, levels, lora), self._acting(rows, levels, lora)
        return self._last[1]

    def _levels(self, scale: Scale, timestep: Any, paths: Iterable[str]) -> dict[str, float]:
        """Layer path → scale at this timestep."""
        factor = 1.0
        if isinstance(scale, ScaleSchedule):
            timestep = float(timestep.flatten()[0] if isinstance(timestep, torch.Tensor) else timestep)
            scale, factor = scale.scale, scale.factor(self._progress(timestep))
        if not isinstance(scale, Mapping):
            return dict.fromkeys(paths, float(scale) * factor)
        return {path: layer_scale(scale, path) * factor for path in paths}

    def _acting(self, rows: Rows, levels: Mapping[str, float], lora: Mapping[str, float]) -> Acting:
        with torch.set_grad_enabled(self._has_graph):  # a forward without gradient may be the first
            if rows not in self._laid_out:
                self._laid_out[rows] = {path: self._layer(path, rows) for path in self._single}
            persons = {
                path: [one if level == 1 else one._replace(values=one.values * level) for one in people]
                for path, people in self._laid_out[rows].items()
                if (level := levels[path]) != 0
            }
        text = None if self._text is None else self._text.repeat(len(rows))
        return Acting(persons, lora, self.regions, text)

    def _layer(self, path: str, rows: Rows) -> list[KeysValues]:
        heads = self._heads[path]
        return [
            KeysValues(
                *(
                    torch.cat([both[row] for row in rows]).unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
                    for both in zip(negative, positive, strict=True)
                )
            )
            for negative, positive in self._single[path]
        ]


def regions_of(persons: Sequence[Person], masks: Sequence[torch.Tensor] | None) -> Regions | None:
    """The persons' masks on their device; `None` for one person without a mask.

    Raises:
        AdapterError: Several people have no masks, or not as many.
    """
    if masks is None and len(persons) > 1:
        raise AdapterError(f"{len(persons)} people in one picture need a mask each (id_masks).")
    if masks is None:
        return None
    if len(masks) != len(persons):
        raise AdapterError(f"{len(persons)} people need as many masks, not {len(masks)}.")
    return Regions([mask.to(persons[0].tokens) for mask in masks])
