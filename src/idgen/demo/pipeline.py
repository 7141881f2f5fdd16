"""`SharedPipeline`: the pipeline that all visitors share, used by one call at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image
from PIL import Image

from ..adapter import IdentityAdapter, IdentityNet, Restorer, ScaleSchedule
from ..errors import AdapterError, DemoError
from ..pipelines.face_crop import pipeline_usage
from ..pipelines.prompts import portrait_subject
from .batching import Turns
from .drawing import Drawing, people_and_prompts
from .enrolled import EnrolledPerson
from .generation import MAX_COUNT, GenerationSettings
from .live import OnStep
from .preview import preview
from .sessions import StoppedError

FAMILIES: Mapping[str, Any] = {
    "image-to-image": AutoPipelineForImage2Image,
    "inpaint": AutoPipelineForInpainting,
    "pose": AutoPipelineForText2Image,
}


EDITS = ("swap", "restore")
"""Tasks that are methods of the pipeline; their arguments hold the `picture`."""


class SharedPipeline:
    """A text-to-image pipeline, and pipelines for the other tasks made of its parts.

    Args:
        pipe: A text-to-image pipeline with at least one identity adapter.
        identity_net: IdentityNet for the task "pose".
        batch_size: Maximum of images in a call that requests with the same settings share.
        restorer: ControlNet for the task "restore".

    Raises:
        AdapterError: No adapter of people is loaded.
    """

    def __init__(
        self,
        pipe: Any,
        identity_net: IdentityNet | None = None,
        batch_size: int = MAX_COUNT,
        restorer: Restorer | None = None,
    ) -> None:
        self.pipe, self.identity_net, self.restorer = pipe, identity_net, restorer
        if not getattr(pipe, "id_adapters", None) or not self.adapters:
            raise AdapterError("The demo needs an identity adapter. Call pipe.load_id_adapter(…) first.")
        pipe.set_progress_bar_config(disable=True)
        self._pipelines: dict[str, Any] = {"text-to-image": pipe}
        self._turns: Turns[Drawing] = Turns(self._draw, batch_size)
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
        """Loaded adapters of people by name."""
        return {name: each for name, each in self.pipe.id_adapters.items() if not each.reads_expression}

    @property
    def expression_adapter(self) -> str | None:
        """Name of the loaded adapter that reads expressions, or `None`."""
        return next((name for name, each in self.pipe.id_adapters.items() if each.reads_expression), None)

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
        alone = task != "text-to-image" or bool(arguments)
        if task in ("text-to-image", "pose"):
            arguments |= {"width": settings.width, "height": settings.height}
        images: Any = self._turns.run(
            Drawing(
                images=settings.count,
                shares=None if alone else settings.of_call,
                stop=stop,
                task=task,
                settings=settings,
                identities=identities,
                arguments=arguments,
                on_step=on_step,
            )
        )
        return images

    def _draw(self, drawings: Sequence[Drawing]) -> list[list[Image.Image]]:
        """The images of each drawing, in one call."""
        first, settings = drawings[0], drawings[0].settings
        ends = list(accumulate(drawing.images for drawing in drawings))
        own = [slice(end - drawing.images, end) for drawing, end in zip(drawings, ends, strict=True)]

        def after_step(pipeline: Any, number: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            if all(drawing.stop.is_set() for drawing in drawings):
                raise StoppedError("Stopped.")
            for drawing, images in zip(drawings, own, strict=True):
                drawing.on_step(
                    number + 1, pipeline.num_timesteps, partial(preview, pipeline, values["latents"][images])
                )
            return values

        name = self._adapter_name(settings)
        pipeline, call = self._prepared(first)
        try:
            images = call(
                **people_and_prompts(drawings, name),
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance_scale,
                generator=[
                    torch.Generator().manual_seed(drawing.settings.seed + i)
                    for drawing in drawings
                    for i in range(drawing.images)
                ],
                callback_on_step_end=after_step,
                **{"id_scale": {name: settings.schedule}, **first.arguments},
            ).images
        except torch.OutOfMemoryError as error:
            raise DemoError("Out of memory. Choose a smaller size or fewer images.") from error
        finally:
            pipeline.maybe_free_model_hooks()  # an exception in a callback leaves this undone
        return [images[part] for part in own]

    def _prepared(self, drawing: Drawing) -> tuple[Any, Callable[..., Any]]:
        """The pipeline of a drawing's task, and what draws; its `picture` is no longer among the arguments."""
        if drawing.task not in EDITS:
            pipeline = self._pipeline(drawing.task)
            return pipeline, pipeline
        network = {"swap": "identity_net", "restore": "restorer"}[drawing.task]
        drawing.arguments[network] = getattr(self, network)
        return self.pipe, partial(getattr(self.pipe, drawing.task), drawing.arguments.pop("picture"))

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
        low, high = self.native_size // 2, (4 if self.draws_one_face else 2) * self.native_size  # faces side by side
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
