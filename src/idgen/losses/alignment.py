"""PuLID's losses that align predictions with an identity to those without (arXiv 2404.16022, section 3.3).

Both predictions start from the same noise and prompt. The paper prints norms of differences. Taken literally, these
grow with the number of positions and have no gradient where both agree, as in the first layer of the first step. Here
the difference is squared and averaged over its elements and over the layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..errors import LossError
from .parametrisation import at_least_float32
from .recorder import LayerRecord, Recording


def semantic_alignment_loss(with_id: Recording, without_id: Recording) -> torch.Tensor:
    """Mean square of `softmax(K Q_idᵀ/√d) Q_id − softmax(K Qᵀ/√d) Q`: the response of each word stays the same.

    Args:
        with_id: Cross-attention layers with the identity.
        without_id: The same layers without the identity; constants.

    Returns:
        (batch,). Weight 0.6 in the paper.

    Raises:
        LossError: The recordings are not of the same layers.
    """
    return _mean_square(with_id, without_id, _words_in_picture)


def layout_alignment_loss(with_id: Recording, without_id: Recording) -> torch.Tensor:
    """Mean square of `Q_id − Q`: the queries of the picture stay the same.

    Args:
        with_id: Cross-attention layers with the identity.
        without_id: The same layers without the identity; constants.

    Returns:
        (batch,). Weight 0.1 in the paper.

    Raises:
        LossError: The recordings are not of the same layers.
    """
    return _mean_square(with_id, without_id, lambda layer: layer.query)


def _words_in_picture(layer: LayerRecord) -> torch.Tensor:
    """Attention of the text's keys over the picture's queries: (batch, heads, tokens, head_dim)."""
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
