"""`<id>` in a prompt → the places where a text encoder reads a person's pseudo-words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ..adapter import Person, lock_of
from ..adapter.words import pseudo_words
from ..errors import AdapterError

PLACEHOLDER = "<id>"
CLASS_WORD = "person"
"""What a text encoder that has no pseudo-words reads in their place."""

PROMPTS = ("prompt", "prompt_2")


def names_somebody(arguments: Mapping[str, Any]) -> bool:
    """Whether a prompt of the call holds the placeholder."""
    return any(PLACEHOLDER in text for name in PROMPTS for text in _texts(arguments.get(name)))


@contextmanager
def persons_in_prompts(
    pipeline: Any, persons: Sequence[Person], arguments: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Let the text encoders read the persons' words where the prompts hold the placeholder.

    A marker takes the placeholder's place: the begin-of-text token, which stands nowhere else behind a prompt's
    start. Negative prompts are left alone.

    Args:
        pipeline: Of diffusers, with one or two text encoders.
        persons: Everybody in the picture; with several, the placeholders are theirs in turn.
        arguments: Of the call.

    Yields:
        The prompts that change, by argument.

    Raises:
        AdapterError: The adapter has no words, or a placeholder lies beyond what the encoder reads.
    """
    encoders = 1 if getattr(pipeline, "text_encoder_2", None) is None else 2
    words = [[w for person in persons for w in person.words[i : i + 1] if w is not None] for i in range(encoders)]
    if not any(words):
        raise AdapterError(f"The prompt names a person by {PLACEHOLDER}, but the adapter has no words; leave it out.")
    changed: dict[str, Any] = {}
    with ExitStack() as stack:
        for i, of_encoder in enumerate(words):
            suffix = f"_{i + 1}" if i else ""
            prompt = arguments.get(f"prompt{suffix}") or arguments["prompt"]
            if of_encoder:
                tokenizer = getattr(pipeline, f"tokenizer{suffix}")
                marker = tokenizer.bos_token * of_encoder[0].shape[1]
                changed[f"prompt{suffix}"] = _replace(prompt, marker)
                for text in {text for text in _texts(changed[f"prompt{suffix}"]) if marker in text}:
                    # diffusers expands the words of textual inversions that have several vectors
                    with lock_of(pipeline.tokenizer):
                        _check_length(tokenizer, pipeline.maybe_convert_prompt(text, tokenizer))
                encoder = getattr(pipeline, f"text_encoder{suffix}")
                stack.enter_context(pseudo_words(encoder, of_encoder, tokenizer.bos_token_id))
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
            f"{PLACEHOLDER} stands at word {last} of the prompt, and the text encoder reads "
            f"{tokenizer.model_max_length - 2}. Move it forward."
        )
