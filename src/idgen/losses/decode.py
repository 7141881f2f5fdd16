"""Decode only the part of a latent that contains the face."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import LossError
from .parametrisation import at_least_float32
from .precision import own_precision

Statistics = dict[nn.Module, tuple[torch.Tensor, torch.Tensor]]


class FaceCrops(NamedTuple):
    """Decoded parts of pictures.

    Attributes:
        images: (batch, 3, height, width), about [0, 1]; not clamped, since clamped values have no gradient.
        offsets: (batch, 2), x and y of the crop's corner in the picture, pixels; subtract them from landmarks.
    """

    images: torch.Tensor
    offsets: torch.Tensor


class WholePictures(NamedTuple):
    """Decoded pictures without a graph.

    Attributes:
        images: (batch, 3, height, width), about [0, 1].
        statistics: Means and variances of the decoder's group norms, for crops of these pictures.
        outputs: Output of each part of the decoder, which crops reuse.
    """

    images: torch.Tensor
    statistics: Statistics
    outputs: list[torch.Tensor]


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceDecoder:
    """Decode only the face's part of each latent, with the gradient.

    Inside the box the pixels equal those of the full decode. The receptive field of the convolutions beyond the box is
    kept as a margin. Two parts of an `AutoencoderKL` depend on the whole picture: its middle block with attention runs
    on the whole latent, which is small, and the means and variances of its group norms come from a pass over the whole
    picture without a graph, so they are constants in the gradient. An `AutoencoderTiny` has neither part.

    Attributes:
        vae: Frozen; latents are as the UNet sees them.
        margin: Latent pixels kept around the box; by default the receptive field of the decoder's convolutions.
        exact: Whether group norms use the whole picture's means and variances. Otherwise those of the crop are used,
            which saves the pass over the whole picture; `docs/losses.md` has the resulting error.
        checkpointing: Recompute the decoder's blocks in the backward pass. For pictures that were decoded as a whole
            before, they run in the backward pass only.

    Raises:
        LossError: The VAE is of another class, or the margin is negative.
    """

    vae: AutoencoderKL | AutoencoderTiny
    margin: int | None = None
    exact: bool = True
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.vae, AutoencoderKL | AutoencoderTiny):
            raise LossError(f"A {type(self.vae).__name__} cannot be decoded in part; use AutoencoderKL or -Tiny.")
        if self.margin is not None and self.margin < 0:
            raise LossError(f"margin must be >= 0 latent pixels, not {self.margin}.")

    @property
    def scale(self) -> int:
        """Pixels per latent pixel."""
        return math.prod(_upsampling(module) for part in self._parts for module in part.modules())

    @torch.no_grad()
    def whole(self, latents: torch.Tensor) -> WholePictures:
        """Decode whole pictures, to find the faces in them; the result can be passed on for the crops."""
        with own_precision(self.vae):
            return self._whole(self._head(latents))

    def __call__(self, latents: torch.Tensor, boxes: torch.Tensor, whole: WholePictures | None = None) -> FaceCrops:
        """Decode the boxes; all crops of a batch have the size of the largest.

        Args:
            latents: (batch, channels, height, width), x0 as the UNet sees it.
            boxes: (batch, 4), x0, y0, x1, y1 in pixels; they are clipped to the picture. Of several boxes per latent,
                (n * batch, 4), those of one latent are next to each other.
            whole: The pictures of the same latents, if they were decoded before.

        Raises:
            LossError: The number of boxes is no multiple of that of latents, or a box is outside the picture.
        """
        if boxes.shape[1:] != (4,) or not len(boxes) or len(boxes) % len(latents):
            raise LossError(f"{len(latents)} latents need (batch, 4) boxes, not {tuple(boxes.shape)}.")
        with own_precision(self.vae):
            return self._crops(latents, boxes, whole)

    def _crops(self, latents: torch.Tensor, boxes: torch.Tensor, whole: WholePictures | None) -> FaceCrops:
        margin = receptive_margin(self._parts) if self.margin is None else self.margin
        windows = _windows(boxes, self.scale, margin, latents.shape[-2], latents.shape[-1])
        hidden = checkpoint(self._head, latents, use_reentrant=False) if self.checkpointing else self._head(latents)
        normed = self.exact and isinstance(self.vae, AutoencoderKL)
        statistics = (whole or self._whole(hidden)).statistics if normed else {}
        each = len(boxes) // len(latents)
        statistics = {
            norm: (mean.repeat_interleave(each, 0), variance.repeat_interleave(each, 0))
            for norm, (mean, variance) in statistics.items()
        }
        images, factor = _cut(hidden, windows), 1
        for i, part in enumerate(self._parts):
            factor *= math.prod(_upsampling(module) for module in part.modules())
            run = partial(_run, part, statistics=statistics)
            if not self.checkpointing:
                images = run(images)
            elif whole is None or not self.exact:
                images = checkpoint(run, images, use_reentrant=False)
            else:
                images = _Known.apply(images, _cut(whole.outputs[i], windows, factor), run)
        offsets = torch.tensor([(x0, y0) for y0, _, x0, _ in windows], device=latents.device) * self.scale
        return FaceCrops(self._to_rgb(images), offsets)

    @property
    def _parts(self) -> list[nn.Module]:
        """The parts of the decoder that run on the crop, in order."""
        decoder: Any = self.vae.decoder
        if isinstance(self.vae, AutoencoderTiny):
            return [*decoder.layers]
        return [*decoder.up_blocks, nn.Sequential(decoder.conv_norm_out, decoder.conv_act, decoder.conv_out)]

    def _head(self, latents: torch.Tensor) -> torch.Tensor:
        """The part of the decoder that runs on the whole latent."""
        vae: Any = self.vae
        latents = latents.to(vae.dtype) / vae.config["scaling_factor"] + (vae.config.get("shift_factor") or 0)
        if isinstance(vae, AutoencoderTiny):
            return torch.tanh(latents / 3) * 3
        if vae.post_quant_conv is not None:
            latents = vae.post_quant_conv(latents)
        return vae.decoder.mid_block(vae.decoder.conv_in(latents))

    def _to_rgb(self, images: torch.Tensor) -> torch.Tensor:
        # the layers of an AutoencoderTiny end in [0, 1]; diffusers maps to [-1, 1] outside of them
        return images if isinstance(self.vae, AutoencoderTiny) else images / 2 + 0.5

    @torch.no_grad()
    def _whole(self, hidden: torch.Tensor) -> WholePictures:
        """The pictures, and mean and variance of each group norm over them."""
        found: Statistics = {}
        outputs: list[torch.Tensor] = []

        def record(norm: nn.Module, args: tuple[torch.Tensor]) -> None:
            assert isinstance(norm, nn.GroupNorm)
            groups = at_least_float32(args[0]).unflatten(1, (norm.num_groups, -1)).flatten(2)
            variance, mean = torch.var_mean(groups, dim=2, correction=0)
            found[norm] = mean, variance

        norms = [norm for part in self._parts for norm in part.modules() if isinstance(norm, nn.GroupNorm)]
        handles = [norm.register_forward_pre_hook(record) for norm in norms]
        try:
            for part in self._parts:
                hidden = part(hidden)
                outputs.append(hidden)
        finally:
            for handle in handles:
                handle.remove()
        return WholePictures(self._to_rgb(hidden), found, outputs)


def receptive_margin(parts: Iterable[nn.Module]) -> int:
    """Receptive field of these layers: input pixels beyond its own that an output pixel depends on.

    Computed from the output back: a convolution widens the interval by half its kernel, an upsampling narrows it.
    """
    layers = [module for part in parts for module in part.modules()]
    low, high = 0, math.prod(_upsampling(layer) for layer in layers) - 1
    for layer in reversed(layers):
        if isinstance(layer, nn.Conv2d):
            reach = max(layer.kernel_size) // 2
            low, high = low - reach, high + reach
        factor = _upsampling(layer)
        low, high = low // factor, high // factor
    return max(-low, high)


def _upsampling(layer: nn.Module) -> int:
    if isinstance(layer, nn.Upsample):
        return int(layer.scale_factor)  # pyright: ignore[reportArgumentType]
    return 2 if isinstance(layer, Upsample2D) else 1


def _windows(boxes: torch.Tensor, scale: int, margin: int, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Rows and columns (y0, y1, x0, x1) of each latent that contain its box and the margin, all of one size."""
    rows = []
    for x0, y0, x1, y1 in (boxes.detach().double() / scale).tolist():
        if not (x0 < width and y0 < height and x1 > 0 and y1 > 0 and x0 < x1 and y0 < y1):
            raise LossError(f"The box {[x0 * scale, y0 * scale, x1 * scale, y1 * scale]} is outside the picture.")
        spans = (y0, y1, height), (x0, x1, width)
        rows.append([(max(0, math.floor(a) - margin), min(n, math.ceil(b) + margin)) for a, b, n in spans])
    sizes = [max(b - a for a, b in spans) for spans in zip(*rows, strict=True)]
    starts = [[min(a, n - s) for (a, _), n, s in zip(row, (height, width), sizes, strict=True)] for row in rows]
    return [(y, y + sizes[0], x, x + sizes[1]) for y, x in starts]


def _cut(x: torch.Tensor, windows: list[tuple[int, int, int, int]], factor: int = 1) -> torch.Tensor:
    """The windows of each sample, next to each other, where each pixel of a window is `factor` pixels wide."""
    each, scaled = len(windows) // len(x), [tuple(side * factor for side in window) for window in windows]
    return torch.stack([x[i // each, :, y0:y1, x0:x1] for i, (y0, y1, x0, x1) in enumerate(scaled)])


class _Known(torch.autograd.Function):
    """A function with a known value: it is evaluated in the backward pass only."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, value: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        ctx.save_for_backward(x)
        kind = x.device.type
        ctx.function = function
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # pyright: ignore
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_(True)
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            value = ctx.function(x)
        return torch.autograd.grad(value, x, gradient)[0], None, None


def _run(part: nn.Module, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    # hooks are set here, not around all parts, since checkpointing calls this again in the backward pass
    with _group_norms_with(part, statistics):
        return part(x)


@contextmanager
def _group_norms_with(part: nn.Module, statistics: Statistics) -> Iterator[None]:
    """Make group norms use these means and variances in place of their input's."""

    def normalise(norm: nn.Module, args: tuple[torch.Tensor], _: torch.Tensor) -> torch.Tensor:
        assert isinstance(norm, nn.GroupNorm)
        x = args[0]
        mean, variance = statistics[norm]
        per_channel = x.shape[1] // norm.num_groups
        mean, rate = (v.repeat_interleave(per_channel, 1) for v in (mean, (variance + norm.eps).rsqrt()))
        gain = rate * norm.weight
        shift, gain = (v[..., None, None].to(x.dtype) for v in (norm.bias - mean * gain, gain))
        return torch.addcmul(shift, x, gain)

    handles = [m.register_forward_hook(normalise) for m in part.modules() if m in statistics]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
