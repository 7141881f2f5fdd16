"""`Projection`: the base class of all projections, and how one adapts to an encoder's embeddings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from .scale import Scale


class Projection(nn.Module, ABC):
    """Projects an identity embedding to tokens.

    The constructor takes `embedding_dim`, `num_tokens` and `cross_attention_dim`. Its other arguments, integers or
    bools with a default, are sizes that the configuration of an adapter can set. The first line of the docstring
    describes the type in the documentation.

    Attributes:
        reads_features: Whether the projection reads features of the photo by an image encoder; it then has a size
            `feature_dim`.
        zero_features: Whether the features of no person are zeros, instead of those of an empty image.
        is_joint: Whether the photos of a person become `num_tokens` tokens together, instead of tokens for each photo.
        in_float32: Whether it computes in float32 also for a UNet of lower precision.
        has_image_encoder: Whether the image encoder is a part of the projection: `encode_images`.
        fuses_text: Whether tokens are fused with text embeddings of the prompt, by `fuse`, instead of being read by
            attention layers.
        has_branches: Whether attention layers read the tokens, each by a branch of its own.
        default_scale: Scale of a new adapter.
    """

    reads_features: ClassVar[bool] = False
    zero_features: ClassVar[bool] = False
    is_joint: ClassVar[bool] = False
    in_float32: ClassVar[bool] = False
    has_image_encoder: ClassVar[bool] = False
    fuses_text: ClassVar[bool] = False
    has_branches: ClassVar[bool] = True
    default_scale: ClassVar[Scale] = 1.0

    @abstractmethod
    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Project embeddings to tokens.

        Args:
            id_embeds: (batch, embedding_dim).
            features: (batch, n, feature_dim), for a projection that reads them.

        Returns:
            (batch, num_tokens, cross_attention_dim).
        """

    def of_photos(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Project several photos of each person; by default to the tokens of one photo after another.

        Args:
            id_embeds: (batch, photos, embedding_dim).
            features: (batch, photos, n, feature_dim), for a projection that reads them.

        Returns:
            (batch, tokens, cross_attention_dim).
        """
        tokens = self(id_embeds.flatten(0, 1), None if features is None else features.flatten(0, 1))
        return tokens.unflatten(0, id_embeds.shape[:2]).flatten(1, 2)

    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(batch, 3, image_size, image_size), normalised as for CLIP → features, (batch, n, feature_dim)."""
        raise NotImplementedError(f"{type(self).__name__} has no image encoder.")

    def fuse(self, text: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Fuse text embeddings with as many identity tokens, (..., cross_attention_dim) each."""
        raise NotImplementedError(f"{type(self).__name__} does not change text embeddings.")

    def standardise_input(self, embeddings: torch.Tensor) -> None:
        """Initialise the projection for the mean and deviation of embeddings; does nothing by default.

        Args:
            embeddings: (people, embedding_dim).
        """


@torch.no_grad()
def standardise_linear(linear: nn.Linear, embeddings: torch.Tensor) -> None:
    """Change a linear layer so that it reads embeddings as it read inputs of mean 0 and deviation 1 before.

    Embeddings of some encoders (dlib's) differ little between people. Without this a new layer takes long to see the
    difference. With fewer than two people the layer does not change.

    Args:
        linear: The layer.
        embeddings: (people, dim).
    """
    if len(embeddings) < 2:
        return
    embeddings = embeddings.to(linear.weight)
    linear.weight.div_(embeddings.std(0).clamp(min=1e-6))
    linear.bias.sub_(linear.weight @ embeddings.mean(0))
