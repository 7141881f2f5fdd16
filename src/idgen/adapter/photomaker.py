"""PhotoMaker v1 and v2 (arXiv 2312.04461): photos → tokens that are fused with the class word of a prompt.

Parameter names are those of the published files, except that v2's Q-Former is a `PlusProjection`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..errors import AdapterError
from .faceid import PlusProjection
from .projection import Projection
from .scale import ScaleSchedule


class FuseMLP(nn.Module):
    """A layer norm and two linear layers."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.layernorm = nn.LayerNorm(input_dim)
        self.fc1 = nn.Linear(input_dim, output_dim)
        self.fc2 = nn.Linear(output_dim, output_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., input_dim) → (..., output_dim)."""
        return self.fc2(F.gelu(self.fc1(self.layernorm(x))))


class FuseModule(nn.Module):
    """Fuses the text embedding of a class word with an identity token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp1 = FuseMLP(2 * dim, dim)
        self.mlp2 = FuseMLP(dim, dim)
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, text: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """(..., dim) text embeddings and as many identity tokens → fused text embeddings."""
        fused = self.mlp1(torch.cat([text, tokens], -1)) + text
        return self.layer_norm(fused + self.mlp2(fused))


class PhotoMakerProjection(Projection):
    """A CLIP image encoder of the whole photo, fused with the class word of the prompt (PhotoMaker v1).

    The embedding is not read. It identifies the person for blocklists.

    Args:
        embedding_dim: Length of an embedding.
        num_tokens: Tokens per photo: 1.
        cross_attention_dim: Width of a token.
        feature_dim: Width of the image encoder.
        image_depth: Layers of the image encoder.
        image_heads: Attention heads of the image encoder.
        image_hidden_dim: Width of the hidden layers of the image encoder.
        image_size: Side of its image in pixels.
        patch_size: Side of a patch in pixels.
        text_dim: Width of the first text encoder, of which the first part of a token is made.

    Raises:
        AdapterError: Sizes do not fit together.
    """

    reads_features = True
    has_image_encoder = True
    fuses_text = True
    has_branches = False
    default_scale = ScaleSchedule(start=0.22)

    def __init__(
        self,
        embedding_dim: int,
        num_tokens: int,
        cross_attention_dim: int,
        *,
        feature_dim: int = 1024,
        image_depth: int = 24,
        image_heads: int = 16,
        image_hidden_dim: int = 4096,
        image_size: int = 224,
        patch_size: int = 14,
        text_dim: int = 768,
    ) -> None:
        super().__init__()
        if text_dim >= cross_attention_dim or feature_dim % image_heads or image_size < patch_size:
            raise AdapterError(
                f"text_dim must be less than {cross_attention_dim}, got {text_dim}; feature_dim must be a multiple of "
                f"image_heads, got {feature_dim} and {image_heads}; image_size must be at least patch_size, got "
                f"{image_size} and {patch_size}."
            )
        self.image_size = image_size
        clip = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=feature_dim,
                intermediate_size=image_hidden_dim,
                num_hidden_layers=image_depth,
                num_attention_heads=image_heads,
                image_size=image_size,
                patch_size=patch_size,
                projection_dim=text_dim,
            )
        )
        self.vision_model = clip.vision_model
        # not in any file: stays off the meta device, on which models are built
        places = torch.arange((image_size // patch_size) ** 2 + 1, device="cpu")[None]
        self.vision_model.embeddings.register_buffer("position_ids", places, persistent=False)
        self.visual_projection = clip.visual_projection
        self.visual_projection_2 = nn.Linear(feature_dim, cross_attention_dim - text_dim, bias=False)
        self.fuse_module = FuseModule(cross_attention_dim)

    @torch.no_grad()
    def encode_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(batch, 3, image_size, image_size), normalised as for CLIP → features, (batch, n, feature_dim)."""
        return self._features(self.vision_model(pixels.to(self.visual_projection.weight)))

    def _features(self, encoded: BaseModelOutputWithPooling) -> torch.Tensor:
        assert encoded.pooler_output is not None
        return encoded.pooler_output[:, None]

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """See `Projection`."""
        features = self._checked(features)
        return torch.cat([self.visual_projection(features), self.visual_projection_2(features)], -1)

    def fuse(self, text: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """See `Projection`."""
        return self.fuse_module(text, tokens)

    def _checked(self, features: torch.Tensor | None) -> torch.Tensor:
        if features is None:
            raise AdapterError("PhotoMaker requires image features of the photo beside the embedding.")
        return features


class PhotoMakerV2Projection(PhotoMakerProjection):
    """Identity tokens that attend to CLIP features of the whole photo, fused with the class word (PhotoMaker v2).

    Args:
        embedding_dim: Length of an embedding.
        num_tokens: Tokens per photo.
        cross_attention_dim: Width of a token.
        hidden_dim: Width of the hidden layer of the MLP; four times `embedding_dim` if not given.
        depth: Layers of the resampler.
        dim_head: Width of an attention head of the resampler.
        heads: Attention heads of the resampler; `cross_attention_dim / dim_head` if not given.
        feature_dim: As for `PhotoMakerProjection`, and so are the further arguments.
        image_depth: See above.
        image_heads: See above.
        image_hidden_dim: See above.
        image_size: See above.
        patch_size: See above.
        text_dim: See above.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_tokens: int,
        cross_attention_dim: int,
        *,
        hidden_dim: int | None = None,
        depth: int = 4,
        dim_head: int = 128,
        heads: int | None = None,
        feature_dim: int = 1024,
        image_depth: int = 24,
        image_heads: int = 16,
        image_hidden_dim: int = 4096,
        image_size: int = 224,
        patch_size: int = 14,
        text_dim: int = 768,
    ) -> None:
        super().__init__(
            embedding_dim,
            num_tokens,
            cross_attention_dim,
            feature_dim=feature_dim,
            image_depth=image_depth,
            image_heads=image_heads,
            image_hidden_dim=image_hidden_dim,
            image_size=image_size,
            patch_size=patch_size,
            text_dim=text_dim,
        )
        self.qformer_perceiver = PlusProjection(
            embedding_dim,
            num_tokens,
            cross_attention_dim,
            hidden_dim=hidden_dim or 4 * embedding_dim,
            feature_dim=feature_dim,
            depth=depth,
            dim_head=dim_head,
            heads=heads,
            shortcut=True,
        )

    def _features(self, encoded: BaseModelOutputWithPooling) -> torch.Tensor:
        assert encoded.last_hidden_state is not None
        return encoded.last_hidden_state

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """See `Projection`."""
        return self.qformer_perceiver(id_embeds, self._checked(features))
