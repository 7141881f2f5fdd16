"""What a call was given (photos or identities, masks, scales) → the conditioning that is active while it runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel
from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..adapter import IdentityNet, Person, Rows, Scale, blocklist_of, set_blocklist
from ..errors import AdapterError
from .arguments import IdentityArguments
from .loaded import LoadedAdapter
from .masks import in_crop, region_masks
from .prompts import PLACEHOLDER, names_somebody, persons_in_prompts


@contextmanager
def conditioned(
    pipeline: Any, call: inspect.BoundArguments, ours: IdentityArguments
) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Activate a call's persons inside the `with`.

    Args:
        pipeline: Of diffusers.
        call: The pipeline and the arguments of its own `__call__`.
        ours: The identity arguments.

    Yields:
        The positional and keyword arguments for the pipeline's own `__call__`, with prompts that hold pseudo-words.

    Raises:
        AdapterError: See `IdentityArguments`.
    """
    loaded: Mapping[str, LoadedAdapter] = pipeline._loaded_adapters
    arguments = _with_defaults(call)
    if (people := ours.people) is None:
        if names_somebody(arguments) and any(each.adapter.config["num_words"] for each in loaded.values()):
            raise AdapterError(f"The prompt names a person by {PLACEHOLDER}: give id_image or id_embeds too.")
        yield call.args[1:], call.kwargs
        return
    by_name = _by_adapter(people, loaded)
    guard(pipeline)
    prompts, pictures = _batch(arguments)
    with ExitStack() as stack:
        drawn = {
            name: _activate(stack, pipeline, name, who, prompts, pictures, ours, arguments)
            for name, who in by_name.items()
        }
        _activate_nets(stack, pipeline, next(iter(drawn.values())), pictures, ours, arguments)
        if names_somebody(arguments):
            named = [persons for persons in drawn.values() if any(words is not None for words in persons[0].words)]
            persons = (named or list(drawn.values()))[0]
            changed = stack.enter_context(persons_in_prompts(pipeline, persons, arguments))
            _replace(call, changed)
        yield call.args[1:], call.kwargs


def _activate(
    stack: ExitStack,
    pipeline: Any,
    name: str,
    people: Any,
    prompts: int,
    pictures: int,
    ours: IdentityArguments,
    arguments: Mapping[str, Any],
) -> list[Person]:
    """Activate one adapter until the stack closes."""
    loaded: LoadedAdapter = pipeline._loaded_adapters[name]
    adapter = loaded.adapter
    if not adapter.is_attached_to(pipeline.unet):  # the UNet was exchanged, or another pipeline unloaded the adapter
        adapter.attach(pipeline.unet)
    if hasattr(pipeline.unet, "_hf_hook"):  # offloading: the adapter is no component, so it moves by itself
        stack.callback(lambda home=adapter.device: adapter.to(home))
    # ModelMixin's own `to` warns of layers kept in float32, even if there are none
    nn.Module.to(adapter, device=pipeline._execution_device, dtype=pipeline.unet.dtype)
    apart = ours.id_masks is not None
    given = {"id_image" if ours.id_embeds is None else "id_embeds": people}
    blocklist = blocklist_of(pipeline.unet)
    persons = loaded.persons(**given, prompts=prompts, apart=apart, blocklist=blocklist)
    at_start, of_call = adapter.scale, _scale_of_call(ours.id_scale, name, pipeline._loaded_adapters)

    def scale() -> Scale:
        if of_call is not None:
            return of_call
        now: LoadedAdapter = pipeline._loaded_adapters.get(name, loaded)  # a callback may have set another
        return at_start if now.scale is None else now.scale

    drawing = adapter.drawing(
        persons,
        pictures,
        masks=in_crop(region_masks(ours.id_masks, len(persons)), pipeline, arguments) if apart else None,
        scale=scale,
        rows=lambda: _rows(pipeline),
        progress=lambda timestep: _progress(pipeline.scheduler, timestep),
    )
    stack.enter_context(drawing)
    return persons


def _activate_nets(
    stack: ExitStack,
    pipeline: Any,
    persons: list[Person],
    pictures: int,
    ours: IdentityArguments,
    arguments: Mapping[str, Any],
) -> None:
    """Let the pipeline's IdentityNets read the persons of the first adapter until the stack closes."""
    controlnet = getattr(pipeline, "controlnet", None)
    nets = controlnet.nets if isinstance(controlnet, MultiControlNetModel) else [controlnet]
    nets = [net for net in map(unwrap_module, nets) if isinstance(net, IdentityNet)]
    if len({id(net) for net in nets}) < len(nets):
        raise AdapterError("The pipeline has the same IdentityNet twice in its list of ControlNets; load it twice.")
    interval = ours.control_interval
    if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
        raise AdapterError(f"control_interval must be an integer >= 1, got {interval!r}.")
    if interval != 1 and not nets:
        raise AdapterError("control_interval is for an IdentityNet, and this pipeline has none.")
    masks = None
    if nets and ours.id_masks is not None:
        masks = in_crop(region_masks(ours.id_masks, len(persons)), pipeline, arguments)
    # schedulers of order 2 call the network twice in a step
    calls = 1 if interval == 1 else interval * pipeline.scheduler.order
    for net in nets:
        reading = net.reading(persons, pictures, masks=masks, rows=lambda: _rows(pipeline), interval=calls)
        stack.enter_context(reading)


def guard(pipeline: Any) -> None:
    """Put the blocklist that was set on the pipeline on its present UNet."""
    blocklist = pipeline.__dict__.get("_id_blocklist")
    if blocklist is not None and blocklist_of(pipeline.unet) is None:
        set_blocklist(pipeline.unet, blocklist)


def _by_adapter(people: Any, loaded: Mapping[str, LoadedAdapter]) -> dict[str, Any]:
    if not loaded:
        raise AdapterError("No identity adapter is loaded: pipe.load_id_adapter(…) first.")
    if not isinstance(people, Mapping):
        return dict.fromkeys(loaded, people)
    if not people:
        raise AdapterError(f"The dict of people is empty; adapters: {list(loaded)}.")
    for name in people:
        if name not in loaded:
            raise AdapterError(f"No adapter is called '{name}'; loaded: {list(loaded)}.")
    return dict(people)


def _scale_of_call(id_scale: Any, name: str, loaded: Mapping[str, LoadedAdapter]) -> Scale | None:
    """The scale that the call gives to one adapter, checked; `None` if it gives none."""
    if isinstance(id_scale, Mapping) and (known := set(id_scale) & set(loaded)):
        if unknown := set(id_scale) - known:
            raise AdapterError(
                f"id_scale names adapters ({sorted(known)}) and others ({sorted(unknown)}): give a number per adapter "
                f"(loaded: {list(loaded)}), or a number per block."
            )
        id_scale = id_scale.get(name)
    if id_scale is not None:
        loaded[name].adapter.check_scale(id_scale)
    return id_scale


def _rows(pipeline: Any) -> Rows:
    """Which parts of the UNet's batch are conditional in the next forward, as the pipeline itself knows it."""
    if (guider := getattr(pipeline, "guider", None)) is not None:  # Modular Diffusers: one forward for each condition
        return (bool(guider.is_conditional),)
    conditional = (True, True) if getattr(pipeline, "do_perturbed_attention_guidance", False) else (True,)
    return (False, *conditional) if pipeline.do_classifier_free_guidance else conditional


def _progress(scheduler: Any, timestep: float) -> float:
    """The share of the scheduler's steps that are done, which holds for continuous timesteps too."""
    times = scheduler.timesteps.float().cpu()
    return int((times - timestep).abs().argmin()) / len(times)


def _batch(arguments: Mapping[str, Any]) -> tuple[int, int]:
    """How many prompts and how many pictures a call draws."""
    prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
    prompts = len(prompt) if isinstance(prompt, list | tuple) else 1 if embeds is None else len(embeds)
    return prompts, prompts * (arguments.get("num_images_per_prompt") or 1)


def _with_defaults(call: inspect.BoundArguments) -> dict[str, Any]:
    """All arguments of a call by name, those that were left at their defaults included."""
    full = inspect.BoundArguments(call.signature, call.arguments.copy())  # pyright: ignore[reportArgumentType]
    full.apply_defaults()
    arguments = dict(full.arguments)
    for parameter in call.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name)
    state = arguments.get("state")  # of Modular Diffusers, where a call goes on with the values of another
    return {**getattr(state, "values", {}), **arguments}


def _replace(call: inspect.BoundArguments, changed: Mapping[str, Any]) -> None:
    """Put changed arguments into a call, by name or among its further keywords."""
    rest = next((p.name for p in call.signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD), "")
    for name, value in changed.items():
        if name in call.signature.parameters:
            call.arguments[name] = value
        else:
            call.arguments[rest] = {**call.arguments.get(rest, {}), name: value}
