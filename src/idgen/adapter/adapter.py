"""`IdentityAdapter`: a projection and one attention branch per layer, attached to a UNet by hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self, cast

import torch
from diffusers.configuration_utils import register_to_config
from torch import nn

from ..errors import AdapterError, IdentityError
from ..faces.expression import EXPRESSION, MEASURES
from .attention import IdentityBranch
from .branch import Branch
from .file_mixin import FileMixin
from .gated import GatedBranch
from .layer_lora import LayerLoRA
from .layers import cross_attention_layers, module_key, self_attention_path
from .orthogonal import Ortho
from .placement import Placement, check_placement
from .projection import Projection
from .projection_config import ProjectionConfig, complete_config, make_projection
from .scale import in_blocks
from .tokens import IdentityTokens
from .unet_mixin import UNetMixin
from .words import WordProjection


class IdentityAdapter(UNetMixin, FileMixin):
    """A projection (identity → tokens) and one attention branch per cross-attention layer of a UNet.

    The adapter is not part of the base model: no key enters the UNet's state dict, and `detach` restores the UNet bit
    for bit.

    Args:
        layers: Path of each cross-attention layer → its inner dimension. `from_unet` reads them from a UNet.
        cross_attention_dim: Width of the tokens, which is the width of the UNet's text embeddings.
        encoder: Name of the face encoder whose embeddings the adapter reads.
        embedding_dim: Length of an embedding.
        normalised: Whether embeddings are scaled to unit length first.
        projection: Type of the projection, or a mapping with its type and sizes, such as
            `{"type": "resampler", "depth": 2}`; see `idgen.adapter.PROJECTIONS`.
        num_tokens: Tokens per identity.
        pool_photos: Whether the embeddings of several photos are averaged; otherwise each photo has its own tokens.
        image_encoder: Name of the image encoder whose features the projection reads, if it reads any and it is known.
        lora_rank: Rank of a LoRA on the UNet's attention layers, as in IP-Adapter-FaceID; 0 for none.
        num_words: Pseudo-words per identity in a prompt (PhotoVerse); 0 for none.
        text_dims: Width of each text encoder's word embeddings; 0 for a text encoder without pseudo-words.
        ortho: How the identity attention is added to the text attention: `"ortho"` or `"ortho_v2"` (PuLID), see
            `idgen.adapter.Ortho`; `None` for a plain sum.
        num_zero: Zero tokens behind the identity tokens, to which attention can go without an effect (PuLID).
        max_people: Number of people in one image that the adapter places itself, without masks. It is 1 unless the
            adapter was trained with several people and `--people.masks none`.
        ordered: Whether people without masks stand from left to right in the order in which they are given, by a
            learned vector for each place that is added to the person's tokens.
        adaptive_words: Whether pseudo-words have the mean and deviation of a set of words (StableIdentity), whatever
            is learned: those of the text encoder's own words from `from_unet`, or others by
            `WordProjection.set_statistics`.
        placement: Where the identity acts in a block: `"parallel"` to the text's cross-attention, or `"sequential"`,
            in gated layers before it; see `idgen.adapter.Placement`.
        blocks: Blocks of the UNet that the adapter acts in, such as `("mid", "up_blocks.1")`; all if there is none.

    Raises:
        AdapterError: The projection is not known, has unknown or invalid sizes, or `ortho`,
            `num_zero`, `max_people`, `placement` or `blocks` is invalid; or `embedding_dim` is not that of the
            encoder of expressions.
    """

    config_name = "config.json"
    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        layers: Mapping[str, int],
        cross_attention_dim: int,
        encoder: str,
        embedding_dim: int = 512,
        normalised: bool = False,
        projection: ProjectionConfig = "mlp",
        num_tokens: int = 4,
        pool_photos: bool = True,
        lora_rank: int = 0,
        num_words: int = 0,
        text_dims: Sequence[int] | None = None,
        image_encoder: str | None = None,
        ortho: Ortho | None = None,
        num_zero: int = 0,
        max_people: int = 1,
        adaptive_words: bool = False,
        placement: Placement = "parallel",
        blocks: Sequence[str] = (),
        ordered: bool = False,
    ) -> None:
        super().__init__()
        check_placement(placement, ortho, num_zero)
        if encoder == EXPRESSION and embedding_dim != len(MEASURES):  # a blocklist is not asked about expressions
            raise AdapterError(f"Expressions of '{encoder}' have {len(MEASURES)} numbers, not {embedding_dim}.")
        layers = {path: layers[path] for path in in_blocks(layers, blocks)}
        if isinstance(max_people, bool) or not isinstance(max_people, int) or max_people < 1:
            raise AdapterError(f"max_people must be an integer >= 1, got {max_people!r}.")
        self.register_to_config(projection=complete_config(projection), blocks=list(blocks))
        self.to_tokens: Projection = make_projection(
            projection, embedding_dim=embedding_dim, num_tokens=num_tokens, cross_attention_dim=cross_attention_dim
        )
        self._scale = self.to_tokens.default_scale
        start = torch.zeros(max_people, cross_attention_dim)
        self.places = nn.Embedding.from_pretrained(start, freeze=False) if ordered else None
        with_branches = layers if self.to_tokens.has_branches else {}
        kind = IdentityBranch if placement == "parallel" else GatedBranch
        self.branches = nn.ModuleDict(
            {module_key(path): kind(cross_attention_dim, dim) for path, dim in with_branches.items()}
        )
        self.loras = _make_loras(layers, cross_attention_dim, lora_rank)
        words = enumerate(text_dims or ()) if num_words else ()
        self.to_words = nn.ModuleDict(
            {str(i): WordProjection(embedding_dim, num_words, dim, adaptive_words) for i, dim in words if dim}
        )
        if not (self.to_tokens.has_branches or self.to_tokens.fuses_text or len(self.to_words)):
            raise AdapterError("An adapter without tokens needs pseudo-words: num_words and text_encoders.")

    @classmethod
    def from_unet(
        cls, unet: nn.Module, *, encoder: str, text_encoders: Sequence[nn.Module | None] = (), **config: Any
    ) -> Self:
        """Make an adapter for a UNet, to be trained. A new one changes no bit of the UNet's output.

        Parallel branches start with the UNet's own keys and with values of zero, sequential ones with gates of zero.

        Args:
            unet: A `UNet2DConditionModel` of SD or SDXL.
            encoder: Name of the face encoder.
            text_encoders: The pipeline's text encoders, for an adapter with pseudo-words (`num_words`, 1 if not
                given), which are initialised like their words; `None` for a text encoder without pseudo-words.
            config: Further arguments of the class.
        """
        tables: list[Any] = [None if text is None else text.get_input_embeddings() for text in text_encoders]  # pyright: ignore
        if tables:
            config = {"num_words": 1, "text_dims": [t.embedding_dim if t else 0 for t in tables]} | config
        layers = cross_attention_layers(unet)
        cross_attention_dim = cast(int, next(iter(layers.values())).cross_attention_dim)
        sizes = {path: layer.inner_dim for path, layer in layers.items()}
        adapter = cls(layers=sizes, cross_attention_dim=cross_attention_dim, encoder=encoder, **config)
        for key, branch in adapter.branches.items():
            if not isinstance(branch, IdentityBranch):
                break
            source: Any = layers[key.replace("/", ".")].to_k
            source = getattr(source, "base_layer", source)  # below a LoRA
            branch.to_k.weight.data.copy_(source.weight.data)
            nn.init.zeros_(branch.to_v.weight)
        for i, table in enumerate(tables):
            if str(i) in adapter.to_words:
                cast(WordProjection, adapter.to_words[str(i)]).initialise_like(table)
        return adapter

    def __repr__(self) -> str:
        config = self.config
        return (
            f"IdentityAdapter(encoder='{config['encoder']}', projection='{config['projection']['type']}', "
            f"num_tokens={config['num_tokens']}, cross_attention_dim={config['cross_attention_dim']}, "
            f"layers={len(config['layers'])})"
        )

    def set_fusion(self, ortho: Ortho | None, num_zero: int = 0) -> None:
        """Change `ortho` and `num_zero`: `adapter.set_fusion(*idgen.adapter.PRESETS["fidelity"])`.

        It applies to all pipelines with this adapter, from their next call on.

        Raises:
            AdapterError: A value is invalid.
        """
        check_placement(self.config["placement"], ortho, num_zero)
        self.register_to_config(ortho=ortho, num_zero=num_zero)

    def standardise_input(self, embeddings: torch.Tensor) -> None:
        """Initialise a new adapter so that it reads embeddings as if they had mean 0 and deviation 1.

        This matters for encoders whose embeddings differ little between people (dlib's). Resamplers do not change.

        Args:
            embeddings: (people, embedding_dim), as the adapter reads them.
        """
        for part in (self.to_tokens, *self.to_words.values()):
            cast(Projection | WordProjection, part).standardise_input(embeddings)

    # -- identity → tokens

    @property
    def feature_dim(self) -> int | None:
        """Width of the image features that the projection reads, or `None` if it reads none."""
        return self.config["projection"]["feature_dim"] if self.to_tokens.reads_features else None

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Project embeddings to tokens.

        Args:
            id_embeds: (batch, embedding_dim), or (batch, photos, embedding_dim) for the tokens of several photos.
            features: (batch, n, feature_dim), or (batch, photos, n, feature_dim), for a projection that reads them.

        Returns:
            (batch, tokens, cross_attention_dim).
        """
        if id_embeds.shape[-1] != self.config["embedding_dim"]:
            raise IdentityError(
                f"id_embeds must have length {self.config['embedding_dim']}, got shape {tuple(id_embeds.shape)}."
            )
        project = self.to_tokens.of_photos if id_embeds.ndim == 3 else self.to_tokens
        if not self.to_tokens.in_float32:
            return project(id_embeds, features)
        weight, branch = next(self.to_tokens.parameters()), next(self.branches.parameters())
        return project(id_embeds.to(weight), None if features is None else features.to(weight)).to(branch)

    def encode(
        self,
        id_embeds: torch.Tensor,
        features: torch.Tensor | None = None,
        negative_features: torch.Tensor | None = None,
    ) -> IdentityTokens:
        """Encode a person: tokens, negative tokens and pseudo-words; see `forward` for the shapes.

        Args:
            id_embeds: Embeddings of each person.
            features: Features of each person.
            negative_features: (1, n, feature_dim), features of no person, unless these are zeros.

        Raises:
            BlockedIdentityError: The blocklist of a UNet with this adapter refuses the person.
        """
        self._refuse_blocked(id_embeds)
        tokens = self(id_embeds, features)
        if self.to_tokens.fuses_text:  # the negative half of guidance is ordinary text
            return IdentityTokens(tokens, tokens[:1, :0], (), id_embeds)
        if features is not None and self.to_tokens.zero_features:
            negative_features = features.new_zeros(1, *features.shape[-2:])
        empty = torch.zeros_like(id_embeds[:1])
        if empty.ndim == 3:  # as many photos as the person has, or one if all photos become tokens together
            empty = empty[:, :1] if self.to_tokens.is_joint else empty
            if negative_features is not None:
                negative_features = negative_features[:, None].expand(-1, empty.shape[1], -1, -1)
        negative = self(empty, negative_features)
        words = self.words(id_embeds if id_embeds.ndim == 2 else id_embeds.mean(1))
        return IdentityTokens(tokens, negative, words, id_embeds)

    def words(self, id_embeds: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """(batch, embedding_dim) → pseudo-words (batch, num_words, text_dim) for each text encoder, or `None`."""
        names = map(str, range(len(self.config["text_dims"] or ())))
        return tuple(self.to_words[name](id_embeds) if name in self.to_words else None for name in names)

    def place(self, device: torch.device | str, dtype: torch.dtype) -> None:
        """Move to a device and a precision; what reads embeddings stays in float32 for a projection `in_float32`."""
        wide = torch.promote_types(dtype, torch.float32) if self.to_tokens.in_float32 else dtype
        for part in self.children():  # ModelMixin's own `to` warns of layers kept in float32, even if there are none
            part.to(device=device, dtype=dtype if part is self.branches or part is self.loras else wide)

    def values(self, tokens: torch.Tensor) -> Iterator[torch.Tensor]:
        """(batch, tokens, cross_attention_dim) → values of each layer, (batch, tokens, inner_dim)."""
        for branch in self.branches.values():
            yield cast(Branch, branch)(tokens)[1]


def _make_loras(layers: Mapping[str, int], cross_attention_dim: int, rank: int) -> nn.ModuleDict:
    """A LoRA for each self-attention and cross-attention layer; none at rank 0."""
    loras = nn.ModuleDict()
    for path, inner_dim in layers.items() if rank else ():
        loras[module_key(self_attention_path(path))] = LayerLoRA(inner_dim, inner_dim, rank)
        loras[module_key(path)] = LayerLoRA(inner_dim, cross_attention_dim, rank)
    return loras
