"""`IdentityNet`: the ControlNet of InstantID (arXiv 2401.07519), which reads an identity where others read text."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.controlnets.controlnet import ControlNetModel, ControlNetOutput
from diffusers.models.modeling_utils import ModelMixin as ModelMixin  # diffusers looks here when it opens a pipeline
from torch import nn

from ..checkpoints import native
from ..checkpoints.building import build
from ..errors import AdapterError
from .attention import Regions
from .layers import cross_attention_layers
from .persons import Person, batch_layouts

Residuals = tuple[list[torch.Tensor], torch.Tensor]


class IdentityNet(ControlNetModel):
    """A ControlNet that reads identity tokens and a drawing of five landmarks.

    It goes wherever a ControlNet goes, alone or in a list with others: `pipeline(controlnet=net)`. A pipeline with an
    identity adapter gives it the adapter's tokens for the time of a call; the others in the list go on reading text.
    `IdentityNet.from_unet(pipe.unet)` starts one for any base, to be trained.
    """

    _reading: _Reading | None = None

    @contextmanager
    def reading(
        self,
        persons: Sequence[Person],
        pictures: int,
        *,
        masks: Sequence[torch.Tensor] | None = None,
        perturbed: bool = False,
        interval: int = 1,
    ) -> Iterator[None]:
        """Let the net read these persons, and not what it is given as `encoder_hidden_states`, inside the `with`.

        Args:
            persons: Everybody in the picture, from `IdentityAdapter.person`.
            pictures: How many pictures are drawn at once.
            masks: Where each person may appear, (height, width) in [0, 1] each; where nobody may, the net reads the
                tokens of nobody.
            perturbed: Whether perturbed-attention guidance is on.
            interval: In how many steps the residuals are computed once; they change slowly.

        Raises:
            AdapterError: The net is reading already, or persons, masks and interval do not fit together.
        """
        if self._reading is not None:
            raise AdapterError("The IdentityNet is reading already; a pipeline serves one call at a time.")
        if interval < 1:
            raise AdapterError(f"Residuals are computed every control_interval >= 1 steps, not {interval}.")
        if len(persons) > 1 and (masks is None or len(masks) != len(persons)):
            raise AdapterError(f"{len(persons)} people in one picture need a mask each (id_masks).")
        width = cast(int, self.config["cross_attention_dim"])
        if persons[0].tokens.shape[-1] != width:
            raise AdapterError(f"The IdentityNet reads tokens of width {width}, not {persons[0].tokens.shape[-1]}.")
        regions = None if masks is None else Regions([mask.to(persons[0].tokens) for mask in masks])
        self._reading = _Reading(_tokens(persons, pictures, perturbed), regions, interval)
        handles = [] if regions is None else _split_by_region(self, self._reading, regions)
        try:
            yield
        finally:
            self._reading = None
            for handle in handles:
                handle.remove()

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        controlnet_cond: torch.Tensor,
        conditioning_scale: float = 1.0,
        *args: Any,
        guess_mode: bool = False,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> ControlNetOutput | tuple[list[torch.Tensor], torch.Tensor]:
        """As `ControlNetModel`, but `encoder_hidden_states` counts for nothing: inside `reading` the persons are read.

        Raises:
            AdapterError: Outside of `reading`; text would be taken for a person.
        """
        if self._reading is None:
            raise AdapterError(
                "An IdentityNet reads a person, not text: load_id_adapter, then give id_image or id_embeds."
            )
        if self._reading.regions is not None:
            self._reading.regions.fit(*sample.shape[-2:])

        def compute(scale: float) -> Residuals:
            options = {**kwargs, "guess_mode": guess_mode, "return_dict": False}
            found = ControlNetModel.forward(self, sample, timestep, tokens, controlnet_cond, scale, *args, **options)
            return cast(Residuals, found)

        tokens = self._reading.first_for(len(sample))
        down, mid = self._reading.residuals(compute, conditioning_scale, (sample.shape, guess_mode))
        return ControlNetOutput(tuple(down), mid) if return_dict else (down, mid)  # pyright: ignore

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # pyright: ignore
        """Write `config.json` and the weights as safetensors; whole or not at all.

        Args:
            save_directory: Made if it does not exist.
            kwargs: As in diffusers.
        """
        native.save_pretrained(super().save_pretrained, save_directory, **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Self:
        """Open one from a folder or the hub (`"InstantX/InstantID", subfolder="ControlNetModel"`), or from a file that
        `idgen convert` has put it into.

        Raises:
            CheckpointError: It cannot be found, is not safetensors, or lacks tensors or has others.
        """
        if os.path.isfile(pretrained_model_name_or_path):
            config, state = native.read_part(pretrained_model_name_or_path, "identity_net")
            net = build(cls, config, state, os.fspath(pretrained_model_name_or_path))
            nn.Module.to(net, dtype=kwargs.get("torch_dtype"))
            return net
        return native.load_pretrained(cls, super().from_pretrained, pretrained_model_name_or_path, **kwargs)


class _Reading:
    """What the net reads in a call, and the residuals it may use again."""

    def __init__(self, tokens: Mapping[int, list[torch.Tensor]], regions: Regions | None, interval: int) -> None:
        self.tokens, self.regions, self.interval = tokens, regions, interval
        self._age = 0
        self._kept: tuple[Any, Residuals] | None = None

    def all_for(self, batch: int) -> list[torch.Tensor]:
        """Tokens of nobody and of each person, laid out over a batch."""
        if batch not in self.tokens:
            raise AdapterError(
                f"The IdentityNet was called with a batch of {batch}; the identities are for {sorted(self.tokens)}."
            )
        return self.tokens[batch]

    def first_for(self, batch: int) -> torch.Tensor:
        """(batch, tokens, dim) that all layers read: the one person's, or nobody's where people have regions."""
        return self.all_for(batch)[1 if self.regions is None else 0]

    def residuals(self, compute: Any, scale: float, layout: Any) -> Residuals:
        """Compute the residuals, or scale those of an earlier step of the same layout."""
        if self.interval == 1:
            return compute(scale)
        if self._kept is None or self._kept[0] != layout or self._age == self.interval:
            self._kept, self._age = (layout, compute(1.0)), 0
        self._age += 1
        down, mid = self._kept[1]
        return [residual * scale for residual in down], mid * scale  # new ones: a list of ControlNets adds in place


def _tokens(persons: Sequence[Person], pictures: int, perturbed: bool) -> dict[int, list[torch.Tensor]]:
    """Batch size → tokens of nobody and of each person, laid out over the batch; see `batch_layouts`."""
    nobody = persons[0].negative.expand(pictures, -1, -1)
    rows = [nobody, *(person.tokens.repeat_interleave(pictures // len(person.tokens), 0) for person in persons)]
    return {
        pictures * (n + p): [torch.cat([nobody] * n + [row] * p) for row in rows]
        for n, p in batch_layouts(pictures, perturbed)
    }


def _split_by_region(net: nn.Module, reading: _Reading, regions: Regions) -> list[Any]:
    """Let each cross-attention layer, which reads nobody, read each person where they may appear."""

    def split(layer: nn.Module, args: tuple, kwargs: dict[str, Any], output: torch.Tensor) -> torch.Tensor:
        _, *people = reading.all_for(len(args[0]))
        masks = torch.stack(regions.at(args[0].shape[1]))
        shares = masks / masks.sum(0).clamp(min=1)
        found = output * (1 - shares.sum(0))
        for tokens, share in zip(people, shares, strict=True):
            found = found + share * layer.forward(*args, **{**kwargs, "encoder_hidden_states": tokens})
        return found

    layers: Mapping[str, Attention] = cross_attention_layers(net)
    return [layer.register_forward_hook(split, with_kwargs=True) for layer in layers.values()]
