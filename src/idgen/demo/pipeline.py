"""`SharedPipeline`: the pipeline that all visitors share, used by one request at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image
from PIL import Image

from ..adapter import IdentityAdapter, IdentityNet, ScaleSchedule
from ..errors import AdapterError, DemoError
from ..pipelines.face_crop import pipeline_usage
from ..pipelines.prompts import portrait_subject
from .enrolled import EnrolledPerson
from .generation import GenerationSettings
from .live import OnStep
from .preview import preview
from .sessions import StoppedError

FAMILIES: Mapping[str, Any] = {
    "image-to-image": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
    "pose": AutoPipelineForText2Image,
}


EDITS = ("swap",)
"""Tasks that are methods of the pipeline; their arguments hold the `picture`."""


class SharedPipeline:
    """A text-to-image pipeline, and pipelines for the other tasks made of its parts.

    Args:
        pipe: A text-to-image pipeline with at least one identity adapter.
        identity_net: IdentityNet for the task "pose".

    Raises:
        AdapterError: No adapter is loaded.
    """

    def __init__(self, pipe: Any, identity_net: IdentityNet | None = None) -> None:
        if not getattr(pipe, "id_adapters", None):
            raise AdapterError("The demo needs an identity adapter. Call pipe.load_id_adapter(…) first.")
        pipe.set_progress_bar_config(disable=True)
        self.pipe, self.identity_net = pipe, identity_net
        self._pipelines: dict[str, Any] = {"text-to-image": pipe}
        self._lock = threading.Lock()
        unet: Any = pipe.unet.config
        self.size_step: int = pipe.vae_scale_factor * 2 ** (len(unet["block_out_channels"]) - 1)
        """Image sides are multiples of this many pixels."""
        self.native_size: int = unet["sample_size"] * pipe.vae_scale_factor
        """Side in pixels of the images that the base was trained on."""
        self.usage = pipeline_usage(pipe)
        """Settings that suit the base, and the words that it knows."""
        self.draws_one_face: bool = self.usage.resolution is not None
        """Whether an image of the base is one face at one size, as those of the built-in model are."""
        self.supports_inpainting: bool = unet["in_channels"] in (4, 9)
        """Whether diffusers' inpainting supports the base; it checks the channels of the latents."""

    @property
    def adapters(self) -> dict[str, IdentityAdapter]:
        """Loaded adapters by name."""
        return self.pipe.id_adapters

    @property
    def has_words(self) -> bool:
        """Whether an adapter reads `<id>` in prompts."""
        return any(adapter.config["num_words"] for adapter in self.adapters.values())

    @property
    def needs_class_word(self) -> bool:
        """Whether an adapter reads `<id>` behind a class word, in every prompt (PhotoMaker)."""
        return any(adapter.to_tokens.fuses_text for adapter in self.adapters.values())

    @property
    def default_settings(self) -> GenerationSettings:
        """A portrait at the base's native size."""
        name, adapter = next(iter(self.adapters.items()))
        return GenerationSettings(
            prompt=portrait_subject(self.adapters.values()),
            adapter=name,
            start=adapter.scale.start if isinstance(adapter.scale, ScaleSchedule) else 0.0,
            steps=self.usage.num_inference_steps,
            guidance_scale=self.usage.guidance_scale,
            width=self.native_size,
            height=self.native_size,
        )

    def generate(
        self,
        task: str,
        settings: GenerationSettings,
        people: Sequence[EnrolledPerson],
        stop: threading.Event,
        on_step: OnStep = lambda done, total, preview: None,
        **arguments: Any,
    ) -> list[Image.Image]:
        """Generate images of people.

        Args:
            task: "text-to-image", "image-to-image", "inpaint", "pose", or one of `EDITS`.
            settings: Settings of the request.
            people: The people to show; with several of them, `arguments` holds their `id_masks`.
            stop: Stops the call after the current step.
            on_step: Called after each step.
            arguments: Further arguments of the task's pipeline.

        Raises:
            StoppedError: `stop` was set.
            DemoError: The size does not fit the base, or there is not enough memory.
            IdgenError: The pipeline refuses the request.
        """
        self.checked_size(settings.width, settings.height)
        identities = [person.for_adapter(self.adapter(settings)) for person in people]
        if task in ("text-to-image", "pose"):
            arguments |= {"width": settings.width, "height": settings.height}
        name = self._adapter_name(settings)
        arguments["id_embeds"] = {name: identities if "id_masks" in arguments else identities[0]}
        arguments["id_scale"] = {name: settings.schedule}
        with self._lock:
            if stop.is_set():
                raise StoppedError("Stopped.")
            pipeline = self.pipe if task in EDITS else self._pipeline(task)
            try:
                if task in EDITS:
                    arguments |= {"identity_net": self.identity_net} if task == "swap" else {}
                    edit = partial(getattr(self.pipe, task), arguments.pop("picture"))
                    return self._call(edit, settings, stop, on_step, arguments)
                return self._call(pipeline, settings, stop, on_step, arguments)
            except torch.OutOfMemoryError as error:
                raise DemoError("Out of memory. Choose a smaller size or fewer images.") from error
            finally:
                pipeline.maybe_free_model_hooks()  # an exception in a callback leaves this undone

    def _call(
        self,
        pipeline: Any,
        settings: GenerationSettings,
        stop: threading.Event,
        on_step: OnStep,
        arguments: dict[str, Any],
    ) -> list[Image.Image]:
        def after_step(pipeline: Any, number: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            if stop.is_set():
                raise StoppedError("Stopped.")
            on_step(number + 1, pipeline.num_timesteps, partial(preview, pipeline, values["latents"]))
            return values

        return pipeline(
            prompt=settings.text,
            negative_prompt=settings.negative_prompt,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance_scale,
            num_images_per_prompt=settings.count,
            generator=[torch.Generator().manual_seed(settings.seed + i) for i in range(settings.count)],
            callback_on_step_end=after_step,
            **arguments,
        ).images

    def adapter(self, settings: GenerationSettings) -> IdentityAdapter:
        """The adapter that the settings name; raises DemoError if there is none of this name."""
        name = self._adapter_name(settings)
        if name not in self.adapters:
            raise DemoError(f"Unknown adapter '{name}'. Loaded adapters: {', '.join(self.adapters)}.")
        return self.adapters[name]

    def _adapter_name(self, settings: GenerationSettings) -> str:
        return settings.adapter or next(iter(self.adapters))

    def checked_size(self, width: float, height: float) -> tuple[int, int]:
        """Width and height in pixels as whole numbers; raises DemoError if they do not fit the base."""
        low, high = self.native_size // 2, 2 * self.native_size
        if not all(low <= side <= high and side % self.size_step == 0 for side in (width, height)):
            raise DemoError(
                f"Width and height must be between {low} and {high} pixels in steps of {self.size_step}, "
                f"got {width} × {height}."
            )
        return int(width), int(height)

    def _pipeline(self, task: str) -> Any:
        if task in self._pipelines:
            return self._pipelines[task]
        options: dict[str, Any] = {"dtype": self.pipe.unet.dtype}  # from_pipe converts to float32 by default
        if task == "pose":
            if self.identity_net is None:
                raise DemoError("Poses need an IdentityNet. Start the demo with --identity-net.")
            options["controlnet"] = self.identity_net.to(self.pipe.device, self.pipe.unet.dtype)
        pipeline = FAMILIES[task].from_pipe(self.pipe, **options)
        pipeline.set_progress_bar_config(disable=True)
        self._pipelines[task] = pipeline
        return pipeline
