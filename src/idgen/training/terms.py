"""The losses that a configuration names."""

from __future__ import annotations

from ..losses import (
    ContrastiveLoss,
    Decay,
    DenoisingLoss,
    MannWhitneyLoss,
    Parametrisation,
    Term,
    ThresholdLoss,
    TripletLoss,
    UpTo,
    WeightedTerms,
    background_loss,
    base_preservation_loss,
    editing_direction_loss,
    identity_loss,
    increment_loss,
    layout_alignment_loss,
    localisation_loss,
    semantic_alignment_loss,
    value_regulariser,
    word_regulariser,
)
from .config import LossConfig

FACE_INPUT = "generated_embeds"
"""Terms that read it need a face encoder and a decoder."""


def make_terms(config: LossConfig, parametrisation: Parametrisation, gated: bool = True) -> WeightedTerms:
    """The denoising loss, and every other whose weight is not zero.

    Args:
        config: Weights and settings.
        parametrisation: Of the base model.
        gated: Whether losses on faces depend on the timestep; faces that are drawn from pure noise have none.
    """
    steps = parametrisation.num_train_timesteps
    gate = None
    if gated:
        gate = UpTo(config.t_max, steps) if config.gate == "hard" else Decay(num_train_timesteps=steps)
    denoising = DenoisingLoss(
        parametrisation=parametrisation,
        snr_gamma=config.snr_gamma or None,
        background_weight=config.background_weight,
    )
    contrastive = ContrastiveLoss(temperature=config.temperature, whiskers=config.whiskers or None, heads=config.heads)
    terms = {
        "denoising": Term(denoising),
        "identity": Term(identity_loss, config.identity, gate, "face_found"),
        "contrastive": Term(contrastive, config.contrastive, gate, "face_found"),
        "triplet": Term(TripletLoss(), config.triplet, gate, "face_found"),
        "threshold": Term(ThresholdLoss(), config.threshold, gate, "face_found"),
        "mann_whitney": Term(MannWhitneyLoss(), config.mann_whitney, gate, "face_found"),
        "preservation": Term(base_preservation_loss, config.preservation),
        "background": Term(background_loss, config.background),
        "editing": Term(editing_direction_loss, config.editing),
        "layout": Term(layout_alignment_loss, config.layout),
        "semantic": Term(semantic_alignment_loss, config.semantic),
        "localisation": Term(localisation_loss, config.localisation),
        "increment": Term(increment_loss, config.increment),
        "words": Term(word_regulariser, config.words),
        "values": Term(value_regulariser, config.values),
    }
    return WeightedTerms({name: term for name, term in terms.items() if term.weight})
