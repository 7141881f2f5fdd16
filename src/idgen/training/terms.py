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
from ..losses.settings import DEFAULTS
from .objectives import LossConfig, fitted

FACE_INPUT = "generated_embeds"
"""Terms that read it need a face encoder and a decoder."""


def make_terms(config: LossConfig, parametrisation: Parametrisation, gated: bool = True) -> WeightedTerms:
    """The denoising loss, and every other whose weight is not zero.

    Args:
        config: Weights and settings; settings that are None are those of the default face encoder.
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
    config = fitted(config, DEFAULTS)
    assert config.temperature is not None
    assert config.margin is not None
    assert config.positive_threshold is not None
    assert config.negative_threshold is not None
    contrastive = ContrastiveLoss(temperature=config.temperature, whiskers=config.whiskers or None, heads=config.heads)
    threshold = ThresholdLoss(
        positive_threshold=config.positive_threshold, negative_threshold=config.negative_threshold
    )
    terms = {
        "denoising": Term(denoising),
        "identity": Term(identity_loss, config.identity, gate, "face_found"),
        "contrastive": Term(contrastive, config.contrastive, gate, "face_found"),
        "triplet": Term(TripletLoss(config.margin), config.triplet, gate, "face_found"),
        "threshold": Term(threshold, config.threshold, gate, "face_found"),
        "mann_whitney": Term(MannWhitneyLoss(config.temperature), config.mann_whitney, gate, "face_found"),
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
