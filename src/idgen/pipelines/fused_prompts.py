"""The class word before `<id>` in a prompt → text embeddings in which it is fused with an identity (PhotoMaker)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..adapter import IdentityAdapter, IdentityTokens
from ..adapter.state import lock_of
from ..adapter.text_fusion import FusedText
from ..adapter.words import repeated_word
from ..errors import AdapterError
from .prompts import PLACEHOLDER, PROMPTS
from .supported import Pipeline

TRIGGER = re.compile(rf"{re.escape(PLACEHOLDER)}|(?<!\w)img(?!\w)")
"""The placeholder, or PhotoMaker's own trigger word."""

EXAMPLE = f"such as 'a photo of a man {PLACEHOLDER}'"


@dataclass(frozen=True)
class TriggeredPrompt:
    """The text before and behind the trigger of a prompt; it ends with the class word, and begins behind the trigger.

    Attributes:
        before: Ends with the class word.
        behind: The rest.
    """

    before: str
    behind: str

    @classmethod
    def parse(cls, text: str) -> TriggeredPrompt:
        """Split a prompt.

        Raises:
            AdapterError: The prompt does not have exactly one trigger, or no class word directly before it.
        """
        triggers = list(TRIGGER.finditer(text))
        if len(triggers) != 1:
            raise AdapterError(
                f"The prompt must contain {PLACEHOLDER} (or img) exactly once, {EXAMPLE}, got {len(triggers)} in "
                f"{text!r}."
            )
        before, behind = text[: triggers[0].start()].rstrip(), text[triggers[0].end() :].lstrip()
        if not before or not (before[-1].isalnum() or before[-1] == ">"):  # textual inversions end in ">"
            raise AdapterError(
                f"A class word (man, woman, person, …) must be directly before {triggers[0].group()}, {EXAMPLE}, got "
                f"{text!r}."
            )
        return cls(before, behind)

    @property
    def text(self) -> str:
        """The prompt without the trigger."""
        return f"{self.before} {self.behind}".rstrip()

    def repeated(self, count: int, marker: str) -> str:
        """The prompt without the trigger, with markers behind the class word for its second to last place."""
        return f"{self.before}{marker * (count - 1)} {self.behind}".rstrip()


@dataclass(frozen=True)
class TriggeredPrompts:
    """All prompts of a call.

    Attributes:
        by_argument: The prompts by argument: `prompt`, and `prompt_2` if it was given.
        are_lists: Whether the arguments are lists.
    """

    by_argument: Mapping[str, Sequence[TriggeredPrompt]]
    are_lists: bool

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> TriggeredPrompts:
        """Parse the prompts of a call.

        Raises:
            AdapterError: There is no prompt, or as for `TriggeredPrompt.parse`.
        """
        if (prompt := arguments.get("prompt")) is None:
            raise AdapterError(
                f"The adapter fuses the identity with a word of the prompt: pass prompt=, {EXAMPLE}, instead of "
                "prompt_embeds."
            )
        given = {name: arguments[name] for name in PROMPTS if arguments.get(name)} or {"prompt": prompt}
        parsed = {
            name: [TriggeredPrompt.parse(text) for text in ([texts] if isinstance(texts, str) else texts)]
            for name, texts in given.items()
        }
        return cls(parsed, not isinstance(prompt, str))

    def without_triggers(self) -> dict[str, str | list[str]]:
        """The prompts by argument without triggers, which the pipeline reads."""
        texts = {name: [each.text for each in prompts] for name, prompts in self.by_argument.items()}
        return {name: each if self.are_lists else each[0] for name, each in texts.items()}


@torch.no_grad()
def fused_text(
    pipeline: Pipeline,
    adapter: IdentityAdapter,
    people: IdentityTokens,
    prompts: TriggeredPrompts,
    arguments: Mapping[str, Any],
    num_images: int,
) -> FusedText:
    """Encode prompts with the class word repeated, once for each identity token, and fuse it with the tokens.

    Args:
        pipeline: A pipeline with one or two text encoders.
        adapter: An adapter whose projection fuses text.
        people: One row for all prompts, or one per prompt.
        prompts: The prompts of the call.
        arguments: All arguments of the call.
        num_images: Images of the call.

    Raises:
        AdapterError: A class word is beyond the maximum length of a text encoder, or at different places of the
            prompts of two text encoders.
    """
    count = people.tokens.shape[1]
    marked: dict[str, list[str]] = {}
    places: list[list[int]] = []
    with ExitStack() as stack:
        for suffix in ("", "_2"):
            if (encoder := getattr(pipeline, f"text_encoder{suffix}", None)) is None:
                continue
            tokenizer = getattr(pipeline, f"tokenizer{suffix}")
            of_encoder = prompts.by_argument.get(f"prompt{suffix}", prompts.by_argument["prompt"])
            marked[f"prompt{suffix}"] = [each.repeated(count, tokenizer.bos_token) for each in of_encoder]
            places.append([_place(pipeline, tokenizer, each.before, count) for each in of_encoder])
            stack.enter_context(repeated_word(encoder, tokenizer.bos_token_id))
        if any(other != places[0] for other in places):
            raise AdapterError("The class words of prompt and prompt_2 must be at the same place, counted in tokens.")
        encode, no_negative = _encoder_of(pipeline)
        encoded = encode(
            **{"prompt": next(iter(marked.values())), **marked, no_negative: False},
            device=pipeline._execution_device,
            num_images_per_prompt=1,
            lora_scale=(arguments.get("cross_attention_kwargs") or {}).get("scale"),
            clip_skip=arguments.get("clip_skip"),
        )
    text, pooled = encoded[0], encoded[2] if len(encoded) > 2 else None
    at = torch.tensor(places[0], device=text.device)[:, None] + torch.arange(count, device=text.device)
    rows = torch.arange(len(at), device=text.device)[:, None]
    words = adapter.to_tokens.fuse(text[rows, at].to(people.tokens), people.tokens.expand(len(at), -1, -1))
    fused = text.clone()
    fused[rows, at] = words.to(text)
    per_prompt = num_images // len(text)
    return FusedText(*(None if x is None else x.repeat_interleave(per_prompt, 0) for x in (text, fused, pooled)))  # pyright: ignore


def _encoder_of(pipeline: Pipeline) -> tuple[Callable[..., Any], str]:
    """`encode_prompt` of a pipeline, and the name of the argument that requests the negative half."""
    if hasattr(pipeline, "encode_prompt"):
        return pipeline.encode_prompt, "do_classifier_free_guidance"  # pyright: ignore[reportAttributeAccessIssue]
    from diffusers.modular_pipelines.stable_diffusion_xl.encoders import StableDiffusionXLTextEncoderStep

    return partial(StableDiffusionXLTextEncoderStep.encode_prompt, pipeline), "prepare_unconditional_embeds"


def _place(pipeline: Pipeline, tokenizer: Any, before: str, count: int) -> int:
    """The place of a class word, counted in tokens from the begin-of-text token."""
    with lock_of(pipeline.tokenizer if pipeline.tokenizer is not None else pipeline):  # pyright: ignore
        if hasattr(pipeline, "maybe_convert_prompt"):  # textual inversions of several vectors
            before = pipeline.maybe_convert_prompt(before, tokenizer)  # pyright: ignore[reportAttributeAccessIssue]
        place = len(tokenizer(before, add_special_tokens=False, truncation=False, verbose=False).input_ids)
    last = tokenizer.model_max_length - 2  # the end-of-text token takes the last place
    if place + count - 1 > last:
        raise AdapterError(
            f"The class word is at token {place} of the prompt and takes {count} place(s), one for each token of the "
            f"identity, but the text encoder reads {last} tokens. Move it forward, or use fewer photos."
        )
    return place
