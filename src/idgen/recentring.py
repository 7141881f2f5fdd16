"""Embeddings that say less of the photo and more of the person: features centred by generation.

Pose2ID (Yuan et al., CVPR 2025, arXiv 2503.00938) centres features for the recognition of people without training:
by the mean over generated poses, and by the mean with neighbours in a bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

from .errors import IdentityError, NoFaceError
from .faces import FaceAnalyzer
from .identity import Identity

POSES = ("a photo of a face, looking to the left", "a photo of a face", "a photo of a face, looking to the right")

AnyIdentity = TypeVar("AnyIdentity", bound=Identity)


def recentred(
    person: AnyIdentity,
    pipeline: Any,
    *,
    prompts: Sequence[str] = POSES,
    share: float = 0.5,
    seed: int = 0,
    analyzer: FaceAnalyzer | None = None,
    **settings: Any,
) -> AnyIdentity:
    """Add the embeddings of pictures that are drawn of the person in several poses, as further photos.

    docs/invented.md has what it is worth with the built-in model.

    Args:
        person: The person. Image features are dropped, since the drawn pictures have none.
        pipeline: With an adapter that reads the person's encoder.
        prompts: One picture for each.
        share: Weight of all drawn pictures together, between 0 and 1; the photos share the rest.
        seed: Seed of the first picture; the others follow.
        analyzer: Finds and embeds the faces; by default that of the person's encoder.
        settings: Further arguments of the pipeline's call.

    Raises:
        IdentityError: `share` is not between 0 and 1.
        NoFaceError: No face is found in any of the pictures.
    """
    if not 0 <= share < 1:
        raise IdentityError(f"share must be at least 0 and below 1, got {share:g}.")
    analyzer = analyzer or FaceAnalyzer.for_encoder(person.encoder)
    pictures = pipeline(
        list(prompts),
        id_embeds=[person] * len(prompts),
        generator=[torch.Generator().manual_seed(seed + i) for i in range(len(prompts))],
        **settings,
    ).images
    faces = [found[0].embedding for found in analyzer.analyze_batch(pictures) if found]
    if not faces:
        raise NoFaceError(f"No face was found in the {len(prompts)} pictures that were drawn of {person}.")
    drawn = torch.from_numpy(np.stack(faces))
    assert person.weights is not None
    weights = torch.cat([(1 - share) * person.weights, torch.full((len(drawn),), share / len(drawn))])
    embeddings = torch.cat([person.embeddings, drawn])
    return replace(person, embeddings=embeddings, weights=weights, features=None, image_encoder=None)


def neighbours_centred(embeddings: np.ndarray, bank: np.ndarray, neighbours: int = 2) -> np.ndarray:
    """Mean directions of each face and of those faces of a bank that are its mutual nearest neighbours (Pose2ID, NFC).

    Args:
        embeddings: (n, dim), unit length.
        bank: (m, dim), unit length; a face that is equal to one of `embeddings` is not its own neighbour.
        neighbours: Two faces are neighbours if each is among so many nearest ones of the other.

    Returns:
        (n, dim), unit length.
    """
    cosines = embeddings @ bank.T
    cosines[cosines > 1 - 1e-6] = -np.inf
    nearest = np.argpartition(-cosines, neighbours - 1, axis=1)[:, :neighbours]
    back = np.argpartition(-cosines, neighbours - 1, axis=0)[:neighbours].T
    centred = embeddings.copy()
    for i, row in enumerate(nearest):
        for j in row:
            if i in back[j]:
                centred[i] += bank[j]
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)
