"""Pseudo-words in prompts: `<id>` → the tokens whose word embeddings are replaced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ..adapter import IdentityAdapter, IdentityTokens
from ..adapter.state import lock_of
from ..adapter.words import pseudo_words
from ..errors import AdapterError
from .supported import Pipeline

PLACEHOLDER = "<id>"
CLASS_WORD = "person"
"""Replaces the placeholder for a text encoder without pseudo-words."""

PROMPTS = ("prompt", "prompt_2")


def portrait_subject(adapters: Iterable[IdentityAdapter]) -> str:
    """The words that stand for the person of these adapters in a prompt."""
    adapters = list(adapters)
    if any(adapter.config["num_words"] for adapter in adapters):
        return PLACEHOLDER
    fuses = any(adapter.to_tokens.fuses_text for adapter in adapters)
    return f"a {CLASS_WORD} {PLACEHOLDER}" if fuses else "a face"


def portrait_prompt(adapters: Iterable[IdentityAdapter]) -> str:
    """The prompt of a photo of the person of these adapters."""
    return f"a photo of {portrait_subject(adapters)}"


def has_placeholder(arguments: Mapping[str, Any]) -> bool:
    """Whether a prompt of the call contains the placeholder."""
    return any(PLACEHOLDER in text for name in PROMPTS for text in _texts(arguments.get(name)))


@contextmanager
def insert_pseudo_words(
    pipeline: Pipeline, people: Sequence[IdentityTokens], arguments: Mapping[str, Any], are_checked: bool = False
) -> Iterator[dict[str, str | list[str]]]:
    """Insert pseudo-words where the prompts contain the placeholder, inside the `with`.

    The placeholder is replaced by a marker: the begin-of-text token, which otherwise occurs at the start of a prompt
    only. Negative prompts do not change.

    Args:
        pipeline: A diffusers pipeline with one or two text encoders.
        people: The tokens of each person in the image; the placeholders stand for them in turn.
        arguments: Arguments of the call.
        are_checked: Whether the placeholders are known to be within the text encoder's maximum length, so that the
            prompts need not be tokenised here.

    Yields:
        The changed prompts, by argument.

    Raises:
        AdapterError: The adapter has no pseudo-words, or a placeholder is beyond the text encoder's maximum length.
    """
    encoders = 1 if getattr(pipeline, "text_encoder_2", None) is None else 2
    words = [[w for person in people for w in person.words[i : i + 1] if w is not None] for i in range(encoders)]
    if not any(words):
        raise AdapterError(f"The prompt contains {PLACEHOLDER}, but the adapter has no pseudo-words; remove it.")
    changed: dict[str, str | list[str]] = {}
    with ExitStack() as stack:
        for i, words_of_encoder in enumerate(words):
            suffix = f"_{i + 1}" if i else ""
            prompt = arguments.get(f"prompt{suffix}") or arguments["prompt"]
            if words_of_encoder:
                tokenizer = getattr(pipeline, f"tokenizer{suffix}")
                marker = tokenizer.bos_token * words_of_encoder[0].shape[1]
                changed[f"prompt{suffix}"] = _replace(prompt, marker)
                unchecked = () if are_checked else _texts(changed[f"prompt{suffix}"])
                for text in {text for text in unchecked if marker in text}:
                    # diffusers expands the words of textual inversions that have several vectors
                    with lock_of(pipeline.tokenizer):
                        _check_length(tokenizer, pipeline.maybe_convert_prompt(text, tokenizer))
                encoder = getattr(pipeline, f"text_encoder{suffix}")
                stack.enter_context(pseudo_words(encoder, words_of_encoder, tokenizer.bos_token_id))
            else:
                changed[f"prompt{suffix}"] = _replace(prompt, CLASS_WORD)
        yield changed


def _texts(prompt: str | Sequence[str] | None) -> Sequence[str]:
    return [] if prompt is None else [prompt] if isinstance(prompt, str) else prompt


def _replace(prompt: str | Sequence[str], by: str) -> str | list[str]:
    if isinstance(prompt, str):
        return prompt.replace(PLACEHOLDER, by)
    return [text.replace(PLACEHOLDER, by) for text in prompt]


def _check_length(tokenizer: Any, text: str) -> None:
    tokens = tokenizer(text, truncation=False, verbose=False).input_ids
    last = max((i for i, token in enumerate(tokens) if token == tokenizer.bos_token_id), default=0)
    if last > tokenizer.model_max_length - 2:  # the end-of-text token takes the last place
        raise AdapterError(
            f"{PLACEHOLDER} is at token {last} of the prompt, but the text encoder reads "
            f"{tokenizer.model_max_length - 2} tokens. Move it forward."
        )
