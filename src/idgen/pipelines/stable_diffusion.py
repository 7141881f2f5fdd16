"""Subclasses of diffusers' pipelines whose identity methods and arguments are known to type checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import diffusers

from ..adapter import Scale
from .arguments import IdEmbeds, IdImage, IdMasks
from .mixin import IdentityAdapterMixin

Stock = ParamSpec("Stock")
Result = TypeVar("Result", covariant=True)


class IdentityCall(Protocol[Stock, Result]):
    """A pipeline's `__call__`, with and without the arguments of `IdentityArguments`."""

    @overload
    def __call__(self, *args: Stock.args, **kwargs: Stock.kwargs) -> Result: ...
    @overload
    def __call__(
        self,
        *args: Any,
        id_image: IdImage | Mapping[str, IdImage] | None = None,
        id_embeds: IdEmbeds | Mapping[str, IdEmbeds] | None = None,
        id_masks: IdMasks | None = None,
        id_scale: Scale | Mapping[str, Scale] | None = None,
        control_interval: int = 1,
        expression_image: IdImage | None = None,
        expression_scale: Scale | None = None,
        **kwargs: Any,
    ) -> Result: ...


def _typed(call: Callable[Concatenate[Any, Stock], Result]) -> IdentityCall[Stock, Result]:
    return call  # pyright: ignore[reportReturnType]


class StableDiffusionPipeline(IdentityAdapterMixin, diffusers.StableDiffusionPipeline):
    """Text to image, SD1.5."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionPipeline.__call__)  # pyright: ignore


class StableDiffusionImg2ImgPipeline(IdentityAdapterMixin, diffusers.StableDiffusionImg2ImgPipeline):
    """Image to image, SD1.5."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionImg2ImgPipeline.__call__)  # pyright: ignore


class StableDiffusionInpaintPipeline(IdentityAdapterMixin, diffusers.StableDiffusionInpaintPipeline):
    """Inpainting, SD1.5."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionInpaintPipeline.__call__)  # pyright: ignore


class StableDiffusionControlNetPipeline(IdentityAdapterMixin, diffusers.StableDiffusionControlNetPipeline):
    """Text to image with ControlNet, SD1.5."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionControlNetPipeline.__call__)  # pyright: ignore


class StableDiffusionControlNetImg2ImgPipeline(
    IdentityAdapterMixin, diffusers.StableDiffusionControlNetImg2ImgPipeline
):
    """Image to image with ControlNet, SD1.5."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionControlNetImg2ImgPipeline.__call__)  # pyright: ignore


class StableDiffusionControlNetInpaintPipeline(
    IdentityAdapterMixin, diffusers.StableDiffusionControlNetInpaintPipeline
):
    """Inpainting with ControlNet, SD1.5."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionControlNetInpaintPipeline.__call__)  # pyright: ignore


class StableDiffusionXLPipeline(IdentityAdapterMixin, diffusers.StableDiffusionXLPipeline):
    """Text to image, SDXL."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionXLPipeline.__call__)  # pyright: ignore


class StableDiffusionXLImg2ImgPipeline(IdentityAdapterMixin, diffusers.StableDiffusionXLImg2ImgPipeline):
    """Image to image, SDXL."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionXLImg2ImgPipeline.__call__)  # pyright: ignore


class StableDiffusionXLInpaintPipeline(IdentityAdapterMixin, diffusers.StableDiffusionXLInpaintPipeline):
    """Inpainting, SDXL."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionXLInpaintPipeline.__call__)  # pyright: ignore


class StableDiffusionXLControlNetPipeline(IdentityAdapterMixin, diffusers.StableDiffusionXLControlNetPipeline):
    """Text to image with ControlNet, SDXL."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionXLControlNetPipeline.__call__)  # pyright: ignore


class StableDiffusionXLControlNetImg2ImgPipeline(
    IdentityAdapterMixin, diffusers.StableDiffusionXLControlNetImg2ImgPipeline
):
    """Image to image with ControlNet, SDXL."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionXLControlNetImg2ImgPipeline.__call__)  # pyright: ignore


class StableDiffusionXLControlNetInpaintPipeline(
    IdentityAdapterMixin, diffusers.StableDiffusionXLControlNetInpaintPipeline
):
    """Inpainting with ControlNet, SDXL."""

    if TYPE_CHECKING:
        __call__ = _typed(diffusers.StableDiffusionXLControlNetInpaintPipeline.__call__)  # pyright: ignore
