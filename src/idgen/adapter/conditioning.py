"""The identity conditioning of one call: keys and values of all people, laid out for each forward of the UNet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import nn

from ..errors import AdapterError
from .branch import Branch, KeysValues
from .fusion import Fusion
from .layers import module_key
from .orthogonal import Ortho
from .regions import Regions, make_regions
from .scale import Scale, layer_scale, scale_at
from .tokens import BatchLayout, IdentityTokens, default_layout


class ForwardConditioning(NamedTuple):
    """The identity conditioning of one forward, which the layers' hooks apply.

    Attributes:
        batch: Batch size of the forward.
        people: Layer path → keys and values of each person; layers at scale 0 are missing.
        scale: Layer path → scale, which is a factor on the values already where the branch `scales_values`.
        lora_scale: Layer path → scale of the adapter's LoRA.
        regions: Where each person may appear.
        shown: (images, 1, 1, keys), which keys of several people without regions are read; `None` for all.
        text_scale: (images,), factor on the layer's own attention.
        ortho: How the identity attention is added; see `Ortho`.
    """

    batch: int
    people: Mapping[str, list[KeysValues]]
    scale: Mapping[str, float]
    lora_scale: Mapping[str, float]
    regions: Regions | None
    shown: torch.Tensor | None
    text_scale: torch.Tensor | None
    ortho: Ortho | None


class Conditioning:
    """The identity conditioning of one call. Keys and values of all people are computed once, here.

    With masks, each person has an attention of their own, which counts in their mask. Several people without masks
    have one attention over the tokens of all of them: each position reads the people whose keys match its query.

    Args:
        branches: The adapter's branches by `module_key`.
        heads: Path of each cross-attention layer → attention heads.
        lora_paths: Paths of the layers with a LoRA.
        people: The tokens of each person in the image.
        num_images: Images of the call, which is the UNet's batch size without guidance.
        scale: Called at each forward, so that the scale can change during the call.
        lora_scale: The same for the adapter's LoRA; `None` follows `scale`.
        masks: Where each person may appear, (height, width) or (images, height, width) in [0, 1] for each.
        shown: (images, people), whether a person is in an image, for people without masks; all by default.
        layout: Called at each forward; see `BatchLayout`. Derived from the batch size if not given.
        progress: Timestep → progress, from 0 (pure noise) to 1 (finished), for schedules.
        fusion: Factors on text and identity, in training.
        ortho: How the identity attention is added; see `Ortho`.
        num_zero: Zero tokens behind the identity tokens.

    Raises:
        AdapterError: The numbers of people, masks and images do not fit together.
    """

    def __init__(
        self,
        branches: nn.ModuleDict,
        heads: Mapping[str, int],
        lora_paths: Sequence[str],
        people: Sequence[IdentityTokens],
        num_images: int,
        *,
        scale: Callable[[], Scale],
        lora_scale: Callable[[], Scale | None],
        masks: Sequence[torch.Tensor] | None,
        shown: torch.Tensor | None,
        layout: Callable[[], BatchLayout] | None,
        progress: Callable[[float], float],
        fusion: Fusion | None,
        ortho: Ortho | None,
        num_zero: int,
    ) -> None:
        self.regions = make_regions(masks, len(people), num_images, people[0].tokens)
        self._is_joint = masks is None and len(people) > 1
        self._shown = None
        if shown is not None and self._is_joint:
            lengths = torch.tensor([each.tokens.shape[1] + num_zero for each in people], device=shown.device)
            self._shown = shown.repeat_interleave(lengths, 1)[:, None, None]
        self._num_images, self._layout, self._progress = num_images, layout, progress
        self._scale, self._lora_scale = scale, lora_scale
        self._text_scale = None if fusion is None else fusion.text
        self._ortho: Ortho | None = ortho
        self._has_graph = torch.is_grad_enabled()
        self._heads, self._lora_paths = heads, lora_paths
        self._keys_values = {
            path: [each.keys_values(branch, num_images, num_zero) for each in people]
            for path in heads
            for branch in [cast(Branch, branches[module_key(path)])]
        }
        self._scales_values = all(cast(Branch, branch).scales_values for branch in branches.values())
        if fusion is not None:
            for pairs in self._keys_values.values():
                for i, (negative, positive) in enumerate(pairs):
                    weighted = positive.values * fusion.identity.to(positive.values)[:, None, None]
                    pairs[i] = negative, positive._replace(values=weighted)
        self._laid_out: dict[BatchLayout, dict[str, list[KeysValues]]] = {}
        self._last: dict[BatchLayout, tuple[tuple[dict[str, float], dict[str, float]], ForwardConditioning]] = {}

    def at(self, batch: int, timestep: torch.Tensor | float) -> ForwardConditioning:
        """The conditioning of a forward with this batch size, at this timestep.

        Raises:
            AdapterError: The batch size does not fit the number of images and the layout.
        """
        layout = default_layout(batch, self._num_images) if self._layout is None else self._layout()
        if batch != len(layout) * self._num_images:
            raise AdapterError(
                f"The UNet was called with a batch of {batch}, but {self._num_images} image(s) with guidance have a "
                f"batch of {len(layout) * self._num_images}. This pipeline batches its calls in an unknown way."
            )
        scale, lora_scale = self._scale(), self._lora_scale()
        scales = self._layer_scales(scale, timestep, self._heads)
        lora_scales = self._layer_scales(scale if lora_scale is None else lora_scale, timestep, self._lora_paths)
        last = self._last.get(layout)
        if last is None or last[0] != (scales, lora_scales):
            last = self._last[layout] = (scales, lora_scales), self._conditioning(layout, scales, lora_scales)
        return last[1]

    def _layer_scales(self, scale: Scale, timestep: torch.Tensor | float, paths: Iterable[str]) -> dict[str, float]:
        """Layer path → scale at this timestep."""
        scale, factor = scale_at(scale, timestep, self._progress)
        if not isinstance(scale, Mapping):
            return dict.fromkeys(paths, float(scale) * factor)
        return {path: layer_scale(scale, path) * factor for path in paths}

    def _conditioning(
        self, layout: BatchLayout, scales: Mapping[str, float], lora_scales: Mapping[str, float]
    ) -> ForwardConditioning:
        with torch.set_grad_enabled(self._has_graph):  # a forward without gradient may be the first
            if layout not in self._laid_out:
                self._laid_out[layout] = {path: self._lay_out(path, layout) for path in self._keys_values}
            people = {
                path: [each._replace(values=each.values * scale) for each in laid_out]
                if self._scales_values and scale != 1
                else laid_out
                for path, laid_out in self._laid_out[layout].items()
                if (scale := scales[path]) != 0
            }
        batch = len(layout) * self._num_images
        return ForwardConditioning(
            batch, people, scales, lora_scales, self.regions, self._shown, self._text_scale, self._ortho
        )

    def _lay_out(self, path: str, layout: BatchLayout) -> list[KeysValues]:
        """Keys and values of each person in one layer, for the whole batch, split into heads."""
        heads = self._heads[path]
        people = [
            KeysValues(
                *(
                    torch.cat([both[part] for part in layout]).unflatten(-1, (heads, -1)).transpose(1, 2).contiguous()
                    for both in zip(negative, positive, strict=True)
                )
            )
            for negative, positive in self._keys_values[path]
        ]
        return [KeysValues(*(torch.cat(part, 2) for part in zip(*people, strict=True)))] if self._is_joint else people
