"""PuLID's alignment of the path with an identity to the path without (arXiv 2404.16022, section 3.3).

Both paths start from the same noise and prompt. The paper prints norms of differences. Read literally they grow with
the number of positions and have no gradient where the paths agree, which they do in the first layer of the first
step; here the difference is squared and averaged over its elements, and over the layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..errors import LossError
from .parametrisation import at_least_float32
from .recorder import LayerRecord, Recording


def semantic_alignment_loss(with_id: Recording, without_id: Recording) -> torch.Tensor:
    """What each word finds in the picture stays the same: `‖softmax(K Q_idᵀ/√d) Q_id − softmax(K Qᵀ/√d) Q‖²`.

    Args:
        with_id: Cross-attention layers with the identity.
        without_id: The same without; constants.

    Returns:
        (batch,). Weight 0.6 in the paper.

    Raises:
        LossError: The recordings are of different layers.
    """
    return _mean_square(with_id, without_id, _words_in_picture)


def layout_alignment_loss(with_id: Recording, without_id: Recording) -> torch.Tensor:
    """Each place of the picture asks for the same: `‖Q_id − Q‖²`.

    Args:
        with_id: Cross-attention layers with the identity.
        without_id: The same without; constants.

    Returns:
        (batch,). Weight 0.1 in the paper.

    Raises:
        LossError: The recordings are of different layers.
    """
    return _mean_square(with_id, without_id, lambda layer: layer.query)


def _words_in_picture(layer: LayerRecord) -> torch.Tensor:
    """Text keys as queries into the picture's features: (batch, heads, tokens, head_dim)."""
    query, key = (x.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for x in (layer.query, layer.key))
    return F.scaled_dot_product_attention(key, query, query)


def _mean_square(
    with_id: Recording, without_id: Recording, feature: Callable[[LayerRecord], torch.Tensor]
) -> torch.Tensor:
    if with_id.keys() != without_id.keys():
        raise LossError("The two recordings must be of the same layers.")
    losses = [
        (at_least_float32(feature(with_id[path])) - at_least_float32(feature(without_id[path]).detach()))
        .square()
        .flatten(1)
        .mean(1)
        for path in with_id
    ]
    return torch.stack(losses).mean(0)
