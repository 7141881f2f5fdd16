"""UNet, text encoder and adapter as one module that never waits for the device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from idgen import IdentityAdapter
from idgen.adapter import Fusion


class Person(nn.Module):
    """A base model with an identity adapter.

    Prompts contain begin-of-text tokens where the person's words go, as in the package; here they are replaced for all
    prompts at once.

    Args:
        unet: The adapter is attached to it.
        text_encoder: A CLIP text model.
        adapter: With pseudo-words.
        alphas: (steps,), ᾱ of the noise schedule.
        marker: The begin-of-text token.
    """

    alphas: torch.Tensor

    def __init__(
        self, unet: nn.Module, text_encoder: nn.Module, adapter: IdentityAdapter, alphas: torch.Tensor, marker: int
    ) -> None:
        super().__init__()
        self.unet, self.text_encoder, self.adapter, self.marker = unet, text_encoder, adapter, marker
        self.register_buffer("alphas", alphas, persistent=False)
        self._words: torch.Tensor | None = None
        adapter.attach(unet)
        table: Any = text_encoder.get_input_embeddings()  # pyright: ignore[reportCallIssue]
        table.register_forward_hook(self._insert)

    def read(self, tokens: torch.Tensor, words: torch.Tensor | None) -> torch.Tensor:
        """Text embeddings (batch, length, dim) of tokens (batch, length) with the words of each person."""
        self._words = words
        try:
            return self.text_encoder(tokens).last_hidden_state
        finally:
            self._words = None

    def _insert(self, _: nn.Module, args: tuple[torch.Tensor], embedded: torch.Tensor) -> torch.Tensor | None:
        if self._words is None:
            return None
        marked = args[0] == self.marker
        marked = marked & (torch.arange(marked.shape[1], device=marked.device) > 0)
        turn = (marked.long().cumsum(1) - 1).clamp(min=0) % self._words.shape[1]
        words = self._words.to(embedded).gather(1, turn[..., None].expand(-1, -1, embedded.shape[-1]))
        return torch.where(marked[..., None], words, embedded)

    def forward(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        tokens: torch.Tensor,
        identity: torch.Tensor,
        shown: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Predict v, (batch, channels, side, side).

        Args:
            noisy: (batch, channels, side, side).
            timesteps: (batch,).
            tokens: (batch, length).
            identity: (batch, dim) of unit length; zeros where the identity is dropped.
            shown: (batch,), factor on what the UNet reads of the person itself.
        """
        person = self.adapter.encode(identity)
        text = self.read(tokens, person.words[0])
        fusion = None if shown is None else Fusion(torch.ones_like(shown), shown)
        with self.adapter.activate([person], len(noisy), fusion=fusion):
            return self.unet(noisy, timesteps, text).sample

    def guided(self, tokens: torch.Tensor, nothing: torch.Tensor, identity: torch.Tensor, scale: float) -> Guided:
        """A denoiser with guidance, for these prompts and people."""
        return Guided(self, tokens, nothing, identity, scale)

    def without(self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The base's own prediction, without a gradient. For `<id>` it reads the words of a zero embedding."""
        with torch.no_grad(), self.adapter.deactivate():
            words = self.adapter.words(noisy.new_zeros(len(noisy), self.adapter.config["embedding_dim"]))[0]
            return self.unet(noisy, timesteps, self.read(tokens, words)).sample

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t of x0."""
        signal, rest = self.factors(timesteps)
        return signal * latents + rest * noise

    def v(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the network should predict."""
        signal, rest = self.factors(timesteps)
        return signal * noise - rest * latents

    def x0(self, output: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x0 of a prediction."""
        signal, rest = self.factors(timesteps)
        return signal * noisy - rest * output

    def factors(self, timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """√ᾱ and √(1 − ᾱ), (batch, 1, 1, 1)."""
        alpha = self.alphas[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()


class Guided:
    """Prompts and people, read once for all steps of a picture; see `Person.guided`."""

    def __init__(
        self, model: Person, tokens: torch.Tensor, nothing: torch.Tensor, identity: torch.Tensor, scale: float
    ) -> None:
        self.model, self.scale = model, scale
        self.person = model.adapter.encode(identity)
        empty = nothing.expand(len(tokens), -1)
        self.text = torch.cat([model.read(empty, None), model.read(tokens, self.person.words[0])])

    def generate(
        self, noise: torch.Tensor, times: Sequence[int], last: int, with_id: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """DDIM from noise (batch, channels, side, side) through `times`, with a gradient in the `last` steps.

        Returns:
            x0, and the input and the output of the last step.
        """
        latents = noisy = output = noise
        adapter = self.model.adapter
        with adapter.activate([self.person], len(noise)) if with_id else adapter.deactivate():
            for i, (t, after) in enumerate(zip(times, [*times[1:], None], strict=True)):
                with nullcontext() if i >= len(times) - last else torch.no_grad():
                    noisy = latents
                    output = self._predict(noisy, t)
                    latents = self._step(noisy, output, t, after)
        return latents, noisy, output

    def _predict(self, noisy: torch.Tensor, t: int) -> torch.Tensor:
        steps = torch.full((2 * len(noisy),), t, device=noisy.device)
        both = self.model.unet(noisy.repeat(2, 1, 1, 1), steps, self.text).sample.float()
        negative, positive = both.chunk(2)
        return negative + self.scale * (positive - negative)

    def _step(self, noisy: torch.Tensor, output: torch.Tensor, t: int, after: int | None) -> torch.Tensor:
        """The latents at the timestep `after`, or x0."""
        alphas = self.model.alphas
        signal, rest = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        x0, noise = signal * noisy - rest * output, signal * output + rest * noisy
        return x0 if after is None else alphas[after].sqrt() * x0 + (1 - alphas[after]).sqrt() * noise


def trailing(steps: int, count: int) -> list[int]:
    """The timesteps of `steps` steps counted from the noisiest end, as the base's scheduler has them."""
    return [round(count - i * count / steps) - 1 for i in range(steps)]
