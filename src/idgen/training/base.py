"""The frozen base model of a training run: its UNet, text encoders, VAE and noise schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import nn

from ..adapter import IdentityTokens
from ..base_model import open_base
from ..errors import TrainingError
from ..losses import Parametrisation
from ..losses.parametrisation import at_least_float32
from ..losses.precision import network_dtype, own_precision
from ..pipelines.prompts import CLASS_WORD, PLACEHOLDER, insert_pseudo_words
from ..weights_key import component_keys, network_key
from .batch import Batch
from .schedulers import with_schedule_of

CACHED = ("vae", "text_encoder")
"""Networks whose outputs are cached in shards."""

SUFFIXES = ("", "_2")
"""Of the names of text encoders, their tokenizers and their prompts."""


class BaseModel:
    """A pipeline of diffusers with all its networks frozen.

    Attributes:
        keys: `network_key` of the networks whose outputs are cached, before they were rounded to `dtype`.
        frozen: The `component_keys` of the pipeline as it was opened.
        tokens: Prompts and the suffix of a text encoder → (batch, length) token ids. The last ones are remembered:
            an update reads the same prompts several times.

    Args:
        pipeline: Pipeline of SD1.5 or SDXL.
        dtype: Dtype of its networks; a VAE that overflows in float16 stays in float32, see `network_dtype`.
        device: Device of its networks.

    Raises:
        TrainingError: The pipeline has no UNet.
    """

    def __init__(self, pipeline: Any, dtype: torch.dtype, device: torch.device) -> None:
        if not hasattr(pipeline, "unet"):
            raise TrainingError(f"{type(pipeline).__name__} has no UNet; adapters are for SD1.5 and SDXL.")
        self.pipeline = pipeline
        cached = {name: getattr(pipeline, name, None) for name in CACHED}
        self.keys = {name: network_key(network) for name, network in cached.items() if network is not None}
        self.frozen = component_keys(pipeline)
        for module in pipeline.components.values():
            if isinstance(module, nn.Module):
                to = network_dtype(module, dtype)
                nn.Module.to(module.eval().requires_grad_(False), device=device, dtype=to)
        self.scheduler: Any = with_schedule_of(DDPMScheduler, pipeline.scheduler)
        self.parametrisation = Parametrisation.of(self.scheduler)
        self.tokens = lru_cache(maxsize=16)(self._tokens)

    @classmethod
    def open(cls, name: str, dtype: torch.dtype, device: torch.device) -> BaseModel:
        """Open a folder, a hub id, or `"tiny"`, the built-in model; raises as `open_base`."""
        dtypes = {"default": dtype, **dict.fromkeys(CACHED, torch.float32)}
        return cls(open_base(name, dtypes), dtype, device)

    @property
    def unet(self) -> Any:
        """The UNet that adapters attach to."""
        return self.pipeline.unet

    @property
    def text_encoders(self) -> list[nn.Module]:
        """One for SD1.5, two for SDXL."""
        return list(self._text_encoders().values())

    def encode(
        self, prompts: Sequence[str], person: IdentityTokens | None = None, people: int = 1
    ) -> dict[str, torch.Tensor]:
        """Encode prompts for the UNet.

        `<id>` is replaced by the pseudo-words of the identity, with a gradient; without an identity or pseudo-words,
        by the word "person". Of several people per prompt, whose rows are next to each other, each `<id>` of a prompt
        stands for the next. All prompts of a run are checked before its first update (`prompt_checks`).

        Returns:
            `encoder_hidden_states`, (batch, length, dim), and for SDXL `text_embeds`, (batch, dim).
        """
        if person is not None and any(words is not None for words in person.words):
            given = {"prompt": list(prompts)}
            with insert_pseudo_words(self.pipeline, person.by_person(people), given, are_checked=True) as changed:
                return self._encode(changed)
        plain = [prompt.replace(PLACEHOLDER, CLASS_WORD) for prompt in prompts]
        with torch.no_grad():
            return self._encode({"prompt": plain})

    def read(self, batch: Batch, person: IdentityTokens | None = None) -> dict[str, torch.Tensor]:
        """The encoded prompts of a batch: as cached, or with pseudo-words from `encode`."""
        words = person is not None and any(words is not None for words in person.words)
        if batch.encoder_hidden_states is None or words:
            return self.encode(batch.prompts, person, batch.people)
        cached = {"encoder_hidden_states": batch.encoder_hidden_states, "text_embeds": batch.text_embeds}
        return {name: part for name, part in cached.items() if part is not None}

    def word_places(
        self, prompts: Sequence[str], person: IdentityTokens, people: int = 1
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions of the pseudo-words for the first text encoder.

        Returns:
            Positions, (faces, words), and whether a prompt contains the pseudo-words of a person, (faces,); positions
            are 0 where it does not.

        Raises:
            TrainingError: There are no pseudo-words for that text encoder.
        """
        words = person.words[0] if person.words else None
        if words is None:
            raise TrainingError("The adapter has no pseudo-words: set num_words.")
        given = {"prompt": list(prompts)}
        with insert_pseudo_words(self.pipeline, person.by_person(people), given, are_checked=True) as changed:
            marked = self.tokens(tuple(changed["prompt"]), "") == self.pipeline.tokenizer.bos_token_id
        marked[:, 0] = False
        length, count = words.shape[1], marked.sum(1, keepdim=True)
        named = (count >= length * torch.arange(1, people + 1, device=marked.device)).flatten()
        first = marked.int().argsort(dim=1, descending=True, stable=True)[:, : people * length]
        places = first.unflatten(1, (people, length)).flatten(0, 1)
        return (places * named[:, None]).to(words.device), named.to(words.device)

    def _text_encoders(self) -> dict[str, Any]:
        """Suffix → text encoder."""
        found = {suffix: getattr(self.pipeline, f"text_encoder{suffix}", None) for suffix in SUFFIXES}
        return {suffix: encoder for suffix, encoder in found.items() if encoder is not None}

    def _tokens(self, prompts: tuple[str, ...], suffix: str) -> torch.Tensor:
        tokenizer = getattr(self.pipeline, f"tokenizer{suffix}")
        found = tokenizer(list(prompts), padding="max_length", truncation=True, return_tensors="pt")
        return found.input_ids.to(self.unet.device)

    def _encode(self, prompts: Mapping[str, str | Sequence[str]]) -> dict[str, torch.Tensor]:
        """As the pipeline's `encode_prompt`, which tokenises each prompt three times."""
        outputs = {
            suffix: encoder(
                self.tokens(tuple(prompts.get(f"prompt{suffix}", prompts["prompt"])), suffix),
                output_hidden_states=True,
            )
            for suffix, encoder in self._text_encoders().items()
        }
        if "_2" not in outputs:
            return {"encoder_hidden_states": outputs[""][0]}
        hidden = torch.cat([each.hidden_states[-2] for each in outputs.values()], -1)
        return {"encoder_hidden_states": hidden, "text_embeds": outputs["_2"][0]}

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents, as the UNet reads them → RGB about [0, 1], (batch, 3, height, width), not clamped."""
        vae = self.pipeline.vae
        latents = latents.to(vae.dtype) / vae.config["scaling_factor"] + (vae.config.get("shift_factor") or 0)
        with own_precision(vae):
            return at_least_float32(vae.decode(latents).sample) / 2 + 0.5

    def added(self, text: dict[str, torch.Tensor], time_ids: torch.Tensor | None) -> dict[str, torch.Tensor] | None:
        """SDXL's `added_cond_kwargs`; None for SD1.5.

        Raises:
            TrainingError: SDXL's `time_ids` are missing.
        """
        if "text_embeds" not in text:
            return None
        if time_ids is None:
            raise TrainingError("SDXL needs the sizes of the pictures: the batch has no time_ids.")
        return {"text_embeds": text["text_embeds"], "time_ids": time_ids.to(text["text_embeds"])}

    def predict(
        self,
        noisy_latents: torch.Tensor,
        timesteps: torch.Tensor,
        text: dict[str, torch.Tensor],
        time_ids: torch.Tensor | None = None,
        residuals: tuple[Sequence[torch.Tensor], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The UNet's prediction, (batch, channels, height, width); `residuals` are those of a ControlNet."""
        dtype = self.unet.dtype
        down, middle = ((), None) if residuals is None else residuals
        return self.unet(
            noisy_latents.to(dtype),
            timesteps,
            encoder_hidden_states=text["encoder_hidden_states"].to(dtype),
            added_cond_kwargs=self.added(text, time_ids),
            down_block_additional_residuals=tuple(part.to(dtype) for part in down) or None,
            mid_block_additional_residual=None if middle is None else middle.to(dtype),
        ).sample
