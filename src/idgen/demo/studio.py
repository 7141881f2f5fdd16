"""`Studio`: the one pipeline, drawn with by one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image
from PIL import Image

from ..adapter import IdentityAdapter, IdentityNet
from ..errors import AdapterError, DemoError
from ..pipelines.prompts import PLACEHOLDER
from .people import Person
from .sessions import StoppedError
from .settings import Settings

Step = Callable[[int, int], None]
"""Told after each step: how many are done, of how many."""


class Studio:
    """Pipelines that share the parts of one; whoever draws holds the lock, and names the person in every call.

    Args:
        pipe: A text-to-image pipeline with at least one identity adapter.
        identity_net: For poses.

    Raises:
        AdapterError: No adapter is loaded.
    """

    def __init__(self, pipe: Any, identity_net: IdentityNet | None = None) -> None:
        if not getattr(pipe, "id_adapters", None):
            raise AdapterError("The demo draws with an identity adapter: pipe.load_id_adapter(…) first.")
        pipe.set_progress_bar_config(disable=True)
        self.pipe, self.identity_net = pipe, identity_net
        self._pipelines: dict[str, Any] = {"text": pipe}
        self._lock = threading.Lock()
        unet: Any = pipe.unet.config
        self.step: int = pipe.vae_scale_factor * 2 ** (len(unet["block_out_channels"]) - 1)
        """Sides of pictures are multiples of this."""
        self.native: int = unet["sample_size"] * pipe.vae_scale_factor
        self.inpaints: bool = unet["in_channels"] in (4, 9)
        """Whether diffusers' inpainting takes this base; it counts the channels of the latent."""

    @property
    def adapters(self) -> dict[str, IdentityAdapter]:
        """By name."""
        return self.pipe.id_adapters

    @property
    def has_words(self) -> bool:
        """Whether an adapter reads `<id>` in prompts."""
        return any(adapter.config["num_words"] for adapter in self.adapters.values())

    @property
    def default_settings(self) -> Settings:
        """A portrait at the base's own size."""
        few = self.native < 256  # the built-in model: larger guidance burns its colours
        return Settings(
            prompt=PLACEHOLDER if self.has_words else "a face",
            adapter=next(iter(self.adapters)),
            guidance_scale=3.0 if few else 5.0,
            width=self.native,
            height=self.native,
        )

    def draw(
        self,
        task: str,
        settings: Settings,
        people: Sequence[Person],
        stop: threading.Event,
        step: Step = lambda done, total: None,
        **arguments: Any,
    ) -> list[Image.Image]:
        """Draw with one of the pipelines.

        Args:
            task: "text", "image", "inpaint" or "pose".
            settings: Of the request.
            people: Who is in the picture; with several, `arguments` holds their `id_masks`.
            stop: Ends the drawing after the step that is under way.
            step: Told of each.
            arguments: The pipeline's own.

        Raises:
            StoppedError: It was.
            DemoError: The size does not fit the base, or the memory.
            IdgenError: What the pipeline refuses.
        """
        self.checked_size(settings.width, settings.height)
        name = settings.adapter or next(iter(self.adapters))
        encoder = self.adapter(settings).config["encoder"]
        identities = [person.for_encoder(encoder) for person in people]

        def after_step(pipeline: Any, number: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            if stop.is_set():
                raise StoppedError("Stopped.")
            step(number + 1, pipeline.num_timesteps)
            return values

        with self._lock:
            if stop.is_set():
                raise StoppedError("Stopped.")
            pipeline = self._pipeline(task)
            if task in ("text", "pose"):
                arguments |= {"width": settings.width, "height": settings.height}
            try:
                return pipeline(
                    settings.text,
                    negative_prompt=settings.negative_prompt,
                    id_embeds={name: identities if "id_masks" in arguments else identities[0]},
                    id_scale={name: settings.schedule},
                    num_inference_steps=settings.steps,
                    guidance_scale=settings.guidance_scale,
                    num_images_per_prompt=settings.count,
                    generator=[torch.Generator().manual_seed(settings.seed + i) for i in range(settings.count)],
                    callback_on_step_end=after_step,
                    **arguments,
                ).images
            except torch.OutOfMemoryError as error:
                raise DemoError("The memory does not suffice: choose a smaller size, or fewer pictures.") from error
            finally:
                pipeline.maybe_free_model_hooks()  # an exception in a callback leaves this undone

    def adapter(self, settings: Settings) -> IdentityAdapter:
        """The one that the settings name; raises DemoError if there is none."""
        name = settings.adapter or next(iter(self.adapters))
        if name not in self.adapters:
            raise DemoError(f"No adapter is called '{name}'. There are: {', '.join(self.adapters)}.")
        return self.adapters[name]

    def checked_size(self, width: float, height: float) -> tuple[int, int]:
        """The size of a picture in pixels; raises DemoError if the base does not draw it."""
        for side in (width, height):
            if not self.native // 2 <= side <= 2 * self.native or side % self.step:
                raise DemoError(
                    f"Sides lie between {self.native // 2} and {2 * self.native} pixels, in steps of {self.step}; "
                    f"{width} × {height} do not."
                )
        return int(width), int(height)

    def landmarks(self, source: Any, size: tuple[int, int]) -> Image.Image:
        """Draw the landmarks of a photo, or of points (faces, 5, 2) in pixels of the picture."""
        return self.pipe.prepare_landmarks(source, size)

    def _pipeline(self, task: str) -> Any:
        if task in self._pipelines:
            return self._pipelines[task]
        families: Mapping[str, Any] = {
            "image": AutoPipelineForImage2Image,
            "inpaint": AutoPipelineForInpainting,
            "pose": AutoPipelineForText2Image,
        }
        options: dict[str, Any] = {"dtype": self.pipe.unet.dtype}  # else everything is made float32
        if task == "pose":
            if self.identity_net is None:
                raise DemoError("Poses need an IdentityNet: start the demo with --identity-net.")
            options["controlnet"] = self.identity_net.to(self.pipe.device, self.pipe.unet.dtype)
        pipeline = families[task].from_pipe(self.pipe, **options)
        pipeline.set_progress_bar_config(disable=True)
        self._pipelines[task] = pipeline
        return pipeline
