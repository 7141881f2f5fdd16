"""The rewards that a configuration names."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionModelWithProjection

from ..errors import CheckpointError, TrainingError
from ..losses import FaceEmbedder, Term
from ..rewards import AestheticHead, AestheticReward, ClipImageEmbeds, IdentityReward, StructureScorer, WeightedRewards
from .methods import RewardsConfig


def make_rewards(config: RewardsConfig, embedder: FaceEmbedder, device: torch.device) -> WeightedRewards:
    """Every reward whose weight is not zero.

    Args:
        config: Weights and files.
        embedder: Of the identity reward.
        device: Where the networks compute.

    Raises:
        CheckpointError: A network cannot be opened.
        TrainingError: A reward of one's own is not where it is said to be.
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
    if config.own:
        terms["own"] = Term(load_function(config.own), config.own_weight)
    return WeightedRewards(terms)


def load_function(where: str) -> Callable[..., Any]:
    """A function of a Python file, `"FILE.py:FUNCTION"`; the file is run.

    Raises:
        TrainingError: There is no such file, or no such function in it.
    """
    file, _, name = where.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise TrainingError(
            f"A reward of one's own is named FILE.py:FUNCTION; '{where}' has no Python file that exists."
        )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(found := getattr(module, name, None)):
        raise TrainingError(f"'{file}' has no function '{name}'.")
    return found


def _aesthetic(config: RewardsConfig, device: torch.device) -> AestheticReward:
    assert config.aesthetic_head is not None
    head = AestheticHead.load(config.aesthetic_head).to(device)
    try:
        clip = CLIPVisionModelWithProjection.from_pretrained(config.aesthetic_clip)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"CLIP could not be opened from '{config.aesthetic_clip}': {error}") from error
    return AestheticReward(ClipImageEmbeds(clip).to(device), head)
