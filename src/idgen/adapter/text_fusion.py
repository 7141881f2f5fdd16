"""Text embeddings with an identity, which the UNet reads instead of the text alone (PhotoMaker)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from .scale import Scale, scale_at
from .state import active, active_state
from .tokens import BatchLayout


class FusedText(NamedTuple):
    """Text embeddings with an identity, a row for each image.

    Attributes:
        text: (images, length, dim), embeddings of the prompt without the identity, with places for all its tokens.
        fused: (images, length, dim), the same with the identity.
        pooled: (images, pooled_dim), the pooled embedding of the prompt, or `None` for a UNet that reads none.
    """

    text: torch.Tensor
    fused: torch.Tensor
    pooled: torch.Tensor | None


class TextConditioning:
    """Replaces text embeddings during a call; where the scale is 0, the UNet reads the pipeline's own.

    Args:
        text: The text embeddings with the identity.
        scale: Called at each forward, so that the scale can change during the call: the difference between `fused`
            and `text` is multiplied by it.
        layout: Called at each forward; see `BatchLayout`. The negative half of guidance does not change.
        progress: Timestep → progress, for schedules.
    """

    def __init__(
        self,
        text: FusedText,
        scale: Callable[[], Scale],
        layout: Callable[[], BatchLayout],
        progress: Callable[[float], float],
    ) -> None:
        self._text, self._scale, self._layout, self._progress = text, scale, layout, progress

    @contextmanager
    def active(self, unet: nn.Module, controlnets: Sequence[nn.Module]) -> Iterator[None]:
        """Replace what networks read inside the `with`, in this thread and context only.

        The UNet reads both embeddings. ControlNets read the pooled embedding of the step and the text without the
        identity, as in PhotoMaker's own ControlNet pipeline.
        """
        with ExitStack() as stack:
            for network in (unet, *controlnets):
                hook = self._hook(fuses=network is unet)
                stack.callback(network.register_forward_pre_hook(hook, with_kwargs=True).remove)
            stack.enter_context(active(self, self))
            yield

    def _hook(self, fuses: bool) -> Callable[..., tuple[Any, dict[str, Any]] | None]:
        def read(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
            if active_state(self) is None:
                return None
            scale, factor = scale_at(self._scale(), args[1] if len(args) > 1 else kwargs["timestep"], self._progress)
            if (strength := cast(float, scale) * factor) == 0:
                return None
            changed = dict(kwargs)
            if fuses:
                fused = torch.lerp(self._text.text, self._text.fused, strength) if strength != 1 else self._text.fused
                changed["encoder_hidden_states"] = self._lay_out(kwargs["encoder_hidden_states"], fused)
            if self._text.pooled is not None:
                conditions = kwargs["added_cond_kwargs"]
                pooled = self._lay_out(conditions["text_embeds"], self._text.pooled)
                changed["added_cond_kwargs"] = {**conditions, "text_embeds": pooled}
            return args, changed

        return read

    def _lay_out(self, batch: torch.Tensor, conditional: torch.Tensor) -> torch.Tensor:
        """A batch of text embeddings with its conditional parts exchanged."""
        parts = batch.split(len(conditional))
        layout = self._layout()[-len(parts) :]  # a ControlNet in guess mode reads no negative half
        return torch.cat([conditional.to(part) if on else part for part, on in zip(parts, layout, strict=True)])
