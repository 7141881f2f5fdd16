"""The losses that a configuration names."""

from __future__ import annotations

from ..losses import (
    ContrastiveLoss,
    DenoisingLoss,
    Parametrisation,
    Term,
    UpTo,
    WeightedTerms,
    background_loss,
    base_preservation_loss,
    identity_loss,
    increment_loss,
    layout_alignment_loss,
    semantic_alignment_loss,
    value_regulariser,
    word_regulariser,
)
from .config import LossConfig

FACE_INPUT = "generated_embeds"
"""Terms that read it need a face encoder and a decoder."""


def make_terms(config: LossConfig, parametrisation: Parametrisation) -> WeightedTerms:
    """The denoising loss, and every other whose weight is not zero."""
    gate = UpTo(config.t_max, parametrisation.num_train_timesteps)
    denoising = DenoisingLoss(
        parametrisation=parametrisation,
        snr_gamma=config.snr_gamma or None,
        background_weight=config.background_weight,
    )
    terms = {
        "denoising": Term(denoising),
        "identity": Term(identity_loss, config.identity, gate, "face_found"),
        "contrastive": Term(ContrastiveLoss(temperature=config.temperature), config.contrastive, gate, "face_found"),
        "preservation": Term(base_preservation_loss, config.preservation),
        "background": Term(background_loss, config.background),
        "layout": Term(layout_alignment_loss, config.layout),
        "semantic": Term(semantic_alignment_loss, config.semantic),
        "increment": Term(increment_loss, config.increment),
        "words": Term(word_regulariser, config.words),
        "values": Term(value_regulariser, config.values),
    }
    return WeightedTerms({name: term for name, term in terms.items() if term.weight})
