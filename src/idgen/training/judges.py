"""The rewards that a configuration names."""

from __future__ import annotations

import torch
from transformers import CLIPVisionModelWithProjection

from ..errors import CheckpointError
from ..losses import FaceEmbedder, Term
from ..rewards import AestheticHead, AestheticReward, ClipImageEmbeds, IdentityReward, StructureScorer, WeightedRewards
from .objectives import RolloutConfig


def make_rewards(config: RolloutConfig, embedder: FaceEmbedder, device: torch.device) -> WeightedRewards:
    """Every reward whose weight is not zero.

    Args:
        config: Weights and files.
        embedder: Of the identity reward.
        device: Where the networks compute.

    Raises:
        CheckpointError: A network cannot be opened.
        LossError: Nothing is rewarded.
    """
    terms: dict[str, Term] = {}
    if config.identity_weight:
        identity = IdentityReward(embedder=embedder, hinge=config.hinge)
        terms["identity"] = Term(identity, config.identity_weight, None, "face_found")
    if config.aesthetic:
        terms["aesthetic"] = Term(_aesthetic(config, device), config.aesthetic)
    if config.structure:
        assert config.structure_scorer is not None
        terms["structure"] = Term(StructureScorer.load(config.structure_scorer).to(device), config.structure)
    return WeightedRewards(terms)


def _aesthetic(config: RolloutConfig, device: torch.device) -> AestheticReward:
    assert config.aesthetic_head is not None
    head = AestheticHead.load(config.aesthetic_head).to(device)
    try:
        clip = CLIPVisionModelWithProjection.from_pretrained(config.aesthetic_clip)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"CLIP could not be opened from '{config.aesthetic_clip}': {error}") from error
    return AestheticReward(ClipImageEmbeds(clip).to(device), head)
