"""diffusers' pipelines with the identity methods and arguments known to type checkers, under the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import diffusers

from .mixin import IdentityAdapterMixin

Stock = ParamSpec("Stock")
Result = TypeVar("Result", covariant=True)


class IdentityCall(Protocol[Stock, Result]):
    """A pipeline's `__call__` as it is, and with the arguments of `IdentityArguments`."""

    @overload
    def __call__(self, *args: Stock.args, **kwargs: Stock.kwargs) -> Result: ...
    @overload
    def __call__(
        self,
        *args: Any,
        id_image: Any = None,
        id_embeds: Any = None,
        id_masks: Any = None,
        id_scale: Any = None,
        control_interval: int = 1,
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
