"""Activates the identity conditioning of one pipeline call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..adapter import BatchLayout, IdentityNet, IdentityTokens, Scale
from ..adapter.guard import blocklist_of, set_blocklist
from ..adapter.text_fusion import TextConditioning
from ..errors import AdapterError
from .arguments import IdentityArguments
from .bound_call import replace_arguments, with_defaults
from .by_adapter import by_adapter, expression_adapter, reads_placeholder, scale_of_adapter
from .fused_prompts import TriggeredPrompts, fused_text
from .loaded import LoadedAdapter, placed
from .masks import crop_masks, read_masks
from .prompts import PLACEHOLDER, has_placeholder, insert_pseudo_words
from .supported import Pipeline


@contextmanager
def activated(
    pipeline: Pipeline, bound: inspect.BoundArguments, ours: IdentityArguments
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Activate the identity conditioning of a call inside the `with`.

    Args:
        pipeline: The diffusers pipeline.
        bound: The pipeline and the arguments of its own `__call__`.
        ours: The identity arguments.

    Yields:
        The positional and keyword arguments for the pipeline's own `__call__`, with pseudo-words in the prompts.

    Raises:
        AdapterError: See `IdentityArguments`.
    """
    call = _Call(pipeline, with_defaults(bound), ours)
    people = ours.people
    if people is None and has_placeholder(call.arguments) and any(map(reads_placeholder, call.loaded.values())):
        raise AdapterError(f"The prompt contains {PLACEHOLDER}, which requires id_image or id_embeds.")
    with ExitStack() as stack:
        if ours.expression_image is not None:
            name = expression_adapter(call.loaded)
            call.activate_adapter(stack, name, {"id_image": ours.expression_image}, ours.expression_scale)
        if people is None:
            yield bound.args[1:], bound.kwargs
            return
        of_people = by_adapter(people, call.loaded)
        apply_blocklist(pipeline)
        fusing = call.fusing_adapter(list(of_people))
        prompts = None if fusing is None else TriggeredPrompts.parse(call.arguments)
        kind = "id_image" if ours.id_embeds is None else "id_embeds"
        tokens = {
            name: call.activate_adapter(stack, name, {kind: given}, call.id_scale(name))
            for name, given in of_people.items()
        }
        call.activate_nets(stack, {name: people for name, people in tokens.items() if name != fusing})
        if fusing is not None and prompts is not None:
            call.activate_text(stack, fusing, tokens[fusing][0], prompts)
            replace_arguments(bound, prompts.without_triggers())
        elif has_placeholder(call.arguments):
            with_words = [each for each in tokens.values() if any(words is not None for words in each[0].words)]
            people = (with_words or list(tokens.values()))[0]
            replace_arguments(bound, stack.enter_context(insert_pseudo_words(pipeline, people, call.arguments)))
        yield bound.args[1:], bound.kwargs


@dataclass(frozen=True)
class _Call:
    """A pipeline call.

    Attributes:
        pipeline: The diffusers pipeline.
        arguments: All arguments of its own `__call__` by name, with defaults.
        ours: The identity arguments.
    """

    pipeline: Pipeline
    arguments: Mapping[str, Any]
    ours: IdentityArguments

    @property
    def loaded(self) -> Mapping[str, LoadedAdapter]:
        return self.pipeline._loaded_adapters

    @property
    def num_prompts(self) -> int:
        prompt, embeds = self.arguments.get("prompt"), self.arguments.get("prompt_embeds")
        return len(prompt) if isinstance(prompt, list | tuple) else 1 if embeds is None else len(embeds)

    @property
    def num_images(self) -> int:
        return self.num_prompts * (self.arguments.get("num_images_per_prompt") or 1)

    @cached_property
    def masks(self) -> list[torch.Tensor] | None:
        if self.ours.id_masks is None:
            return None
        return crop_masks(read_masks(self.ours.id_masks), self.pipeline, self.arguments)

    def activate_adapter(
        self, stack: ExitStack, name: str, given: Mapping[str, Any], scale: Scale | None
    ) -> list[IdentityTokens]:
        """Activate one adapter until the stack closes; returns the tokens of each person.

        Args:
            stack: Closed after the call.
            name: Name of the adapter.
            given: The people, as `id_image` or `id_embeds`.
            scale: Its scale in this call, if one was given.
        """
        pipeline, loaded = self.pipeline, self.loaded[name]
        adapter = loaded.adapter
        if not adapter.is_attached_to(pipeline.unet):  # it was exchanged, or another pipeline unloaded the adapter
            adapter.attach(pipeline.unet)
        stack.enter_context(placed(adapter, pipeline))
        tokens = loaded.encode(
            **given,
            num_prompts=self.num_prompts,
            together=self.ours.id_masks is not None or (self.num_prompts == 1 and adapter.config["max_people"] > 1),
            blocklist=blocklist_of(pipeline.unet),
        )
        conditioning = adapter.activate(
            tokens,
            self.num_images,
            masks=self.masks,
            scale=self.scale_of(name, scale),
            layout=self.layout,
            progress=self.progress,
        )
        stack.enter_context(conditioning)
        return tokens

    def id_scale(self, name: str) -> Scale | None:
        """The `id_scale` of an adapter, or `None` if it was not given."""
        return scale_of_adapter(self.ours.id_scale, name, self.loaded)

    def scale_of(self, name: str, of_call: Scale | None) -> Callable[[], Scale]:
        """The scale of an adapter, to be called at each forward: that of the call, if one was given."""
        loaded = self.loaded[name]
        initial = loaded.adapter.scale
        if of_call is not None:
            loaded.adapter.check_scale(of_call)

        def scale() -> Scale:
            if of_call is not None:
                return of_call
            current = self.loaded.get(name, loaded).scale  # a callback may call set_id_adapter_scale
            return initial if current is None else current

        return scale

    def progress(self, timestep: float) -> float:
        """The fraction of the scheduler's steps that are done, also for continuous timesteps."""
        times = self.pipeline.scheduler.timesteps.float().cpu()  # pyright: ignore[reportAttributeAccessIssue]
        return int((times - timestep).abs().argmin()) / len(times)

    def fusing_adapter(self, names: Sequence[str]) -> str | None:
        """The one of these adapters that fuses the identity with the prompt, or `None`.

        Raises:
            AdapterError: There are others that change the prompt, or `id_masks` was given.
        """
        fusing = [name for name in names if self.loaded[name].adapter.to_tokens.fuses_text]
        if not fusing:
            return None
        readers = [name for name in names if reads_placeholder(self.loaded[name])]
        if len(readers) > 1:
            raise AdapterError(
                f"Only one adapter can change the prompt, but {readers} do. Name the adapters of a call: "
                "id_embeds={'<adapter>': …}."
            )
        if self.ours.id_masks is not None:
            raise AdapterError(
                f"The adapter '{fusing[0]}' changes the prompt, which the whole image reads: it cannot be used with "
                "id_masks or several people in one image."
            )
        return fusing[0]

    def activate_text(self, stack: ExitStack, name: str, people: IdentityTokens, prompts: TriggeredPrompts) -> None:
        """Activate text embeddings with the identity until the stack closes."""
        adapter = self.loaded[name].adapter
        text = fused_text(self.pipeline, adapter, people, prompts, self.arguments, self.num_images)
        conditioning = TextConditioning(text, self.scale_of(name, self.id_scale(name)), self.layout, self.progress)
        stack.enter_context(conditioning.active(unwrap_module(self.pipeline.unet), self.controlnets))

    @cached_property
    def controlnets(self) -> list[nn.Module]:
        """All ControlNets of the pipeline."""
        controlnet = getattr(self.pipeline, "controlnet", None)
        nets = getattr(controlnet, "nets", [controlnet])
        return [] if controlnet is None else [unwrap_module(net) for net in nets]

    def activate_nets(self, stack: ExitStack, tokens: Mapping[str, list[IdentityTokens]]) -> None:
        """Activate the pipeline's IdentityNets for the people of the first of these adapters until the stack closes.

        Args:
            stack: Closed after the call.
            tokens: The tokens of each person by adapter.
        """
        nets = [net for net in self.controlnets if isinstance(net, IdentityNet)]
        if len({id(net) for net in nets}) < len(nets):
            raise AdapterError(
                "The pipeline's list of ControlNets contains the same IdentityNet twice; load it twice."
            )
        interval = self.ours.control_interval
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise AdapterError(f"control_interval must be an integer >= 1, got {interval!r}.")
        if interval != 1 and not nets:
            raise AdapterError("control_interval requires an IdentityNet, but the pipeline has none.")
        # schedulers of order 2 call the network twice per step
        calls = 1 if interval == 1 else interval * self.pipeline.scheduler.order
        if nets and not tokens:
            raise AdapterError(
                "An IdentityNet reads the tokens of an adapter with attention layers, such as InstantID; load it too."
            )
        for net in nets:
            people = next(iter(tokens.values()))
            conditioning = net.activate(people, self.num_images, masks=self.masks, layout=self.layout, interval=calls)
            stack.enter_context(conditioning)

    def layout(self) -> BatchLayout:
        """Which parts of the UNet's batch are conditional in the next forward."""
        pipeline = self.pipeline
        if (guider := getattr(pipeline, "guider", None)) is not None:  # Modular Diffusers: one forward per condition
            return (bool(guider.is_conditional),)
        conditional = (True, True) if getattr(pipeline, "do_perturbed_attention_guidance", False) else (True,)
        return (False, *conditional) if pipeline.do_classifier_free_guidance else conditional


def apply_blocklist(pipeline: Pipeline) -> None:
    """Set the pipeline's blocklist on its current UNet."""
    blocklist = pipeline.__dict__.get("_id_blocklist")
    if blocklist is not None and blocklist_of(pipeline.unet) is None:
        set_blocklist(pipeline.unet, blocklist)
