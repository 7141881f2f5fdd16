"""Settings of `forget`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import ProvenanceError

Anchor = Literal["nobody", "stranger"]
WhereInUNet = Literal["auto", "always", "never"]


@dataclass(frozen=True, kw_only=True)
class ForgettingSettings:
    """How people are forgotten.

    Attributes:
        steps: Gradient steps in token space, at each of which up to four people are forgotten: more people need more.
            0 changes nothing there.
        learning_rate: Learning rate of Adam; it falls to 0. By default 5e-3 for pseudo-words and for a projection that
            is a perceptron, and 1e-3 for one with attention.
        anchor: What is drawn instead of a forgotten person: the average face of the encoder ("nobody"), or one
            invented person for each forgotten one ("stranger").
        threshold: Cosine from which two faces are taken for the same person. Embeddings this near to a forgotten
            person are forgotten too. By default that of the encoder's statistics at a false-match rate of 1e-3.
        unet: Whether to train the adapter's LoRA on the UNet too: only if a search still finds embeddings whose
            tokens are near the person's ("auto"), "always", or "never". It needs the base model.
        unet_steps: Gradient steps there.
        seed: Seed of everything that is random.

    Raises:
        ProvenanceError: A value is out of range.
    """

    steps: int = 800
    learning_rate: float | None = None
    anchor: Anchor = "nobody"
    threshold: float | None = None
    unet: WhereInUNet = "auto"
    unet_steps: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "unet_steps"):
            if getattr(self, name) < 0:
                raise ProvenanceError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ProvenanceError(f"learning_rate must be above 0, got {self.learning_rate}.")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise ProvenanceError(f"threshold must be between 0 and 1, got {self.threshold}.")
