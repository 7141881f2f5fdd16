"""`IdentityAdapter`: stands outside a UNet and joins it by hooks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..checkpoints import native
from ..checkpoints.card import model_card
from ..errors import AdapterError, BaseMismatchError, IdentityError
from .attention import Binding, IdentityBranch, Regions
from .layers import base_name, cross_attention_layers, forget_compiled, module_key
from .persons import Person, keys_values
from .projection import MLPProjection, PlusProjection, Resampler
from .scale import Scale, ScaleSchedule, check_scale, layer_scale


class IdentityAdapter(ModelMixin, ConfigMixin):
    """A projection (identity → tokens) and one branch per cross-attention layer of a UNet.

    The base model owns nothing of it: no key enters its state dict, and `detach` leaves it as it was, bit for bit.

    Args:
        layers: Path of each cross-attention layer → its inner dimension. `from_unet` reads them.
        cross_attention_dim: Width of the tokens, which is that of the UNet's text.
        encoder: Name of the face encoder whose embeddings this adapter reads.
        embedding_dim: Length of its embeddings.
        normalised: Whether embeddings are scaled to unit length first.
        projection: `"mlp"` (IP-Adapter-FaceID), `"resampler"` (InstantID) or `"plus"` (FaceID-Plus).
        num_tokens: Tokens for one identity.
        hidden_dim: Width of the projection; twice `embedding_dim` for the MLP and 1280 for the resampler if not given.
        depth: Layers of the resampler.
        dim_head: Width of an attention head in the resampler.
        heads: Heads in the resampler; `hidden_dim / dim_head` if not given.
        feature_dim: Width of the CLIP features that `"plus"` reads.
        shortcut: Whether `"plus"` adds the identity tokens to its output (PlusV2).
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
        projection: str = "mlp",
        num_tokens: int = 4,
        hidden_dim: int | None = None,
        depth: int = 4,
        dim_head: int = 64,
        heads: int | None = None,
        feature_dim: int = 1280,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        mlp_dim = hidden_dim or 2 * embedding_dim
        self.to_tokens: MLPProjection | Resampler
        if projection == "mlp":
            self.to_tokens = MLPProjection(embedding_dim, num_tokens, cross_attention_dim, mlp_dim)
        elif projection == "resampler":
            dim = hidden_dim or 1280
            heads = heads or dim // dim_head
            self.to_tokens = Resampler(dim, depth, dim_head, heads, num_tokens, embedding_dim, cross_attention_dim)
        elif projection == "plus":
            heads = heads or max(1, cross_attention_dim // dim_head)
            self.to_tokens = PlusProjection(
                embedding_dim, num_tokens, cross_attention_dim, mlp_dim, feature_dim, depth, dim_head, heads, shortcut
            )
        else:
            raise AdapterError(f"projection={projection!r} is not known; use 'mlp', 'resampler' or 'plus'.")
        self.branches = nn.ModuleDict(
            {module_key(path): IdentityBranch(cross_attention_dim, inner_dim) for path, inner_dim in layers.items()}
        )
        self._scale: Scale = 1.0
        self._bindings: dict[str, Binding] = {}
        self._unet: list[nn.Module] = []  # in a list, so that torch does not take the base model for a part of us
        self._unet_handle: Any = None
        self._num_train_timesteps = 1000
        self._drawing = False

    @classmethod
    def from_unet(cls, unet: nn.Module, *, encoder: str, **config: Any) -> Self:
        """Make an adapter for a UNet, with branches that start from its own keys and values.

        Args:
            unet: A `UNet2DConditionModel` of SD or SDXL.
            encoder: See the class; so is `config`.
        """
        layers = cross_attention_layers(unet)
        cross_attention_dim = cast(int, next(iter(layers.values())).cross_attention_dim)
        sizes = {path: layer.inner_dim for path, layer in layers.items()}
        adapter = cls(layers=sizes, cross_attention_dim=cross_attention_dim, encoder=encoder, **config)
        for path, layer in layers.items():
            branch = adapter.branches[module_key(path)]
            for name in ("to_k", "to_v"):
                source = getattr(layer, name)
                source = getattr(source, "base_layer", source)  # below a LoRA
                getattr(branch, name).weight.data.copy_(source.weight.data)
        return adapter

    # -- identity → tokens

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Project embeddings to tokens.

        Args:
            id_embeds: (batch, embedding_dim), or (batch, photos, embedding_dim) to have the tokens of several photos.
            features: (batch, n, feature_dim), for `"plus"` only.

        Returns:
            (batch, tokens, cross_attention_dim).
        """
        if id_embeds.shape[-1] != self.config["embedding_dim"]:
            raise IdentityError(
                f"The adapter reads embeddings of length {self.config['embedding_dim']}, not {id_embeds.shape[-1]}."
            )
        if id_embeds.ndim == 3:
            tokens = self(id_embeds.flatten(0, 1), None if features is None else features.flatten(0, 1))
            return tokens.unflatten(0, id_embeds.shape[:2]).flatten(1, 2)
        if isinstance(self.to_tokens, PlusProjection):
            return self.to_tokens(id_embeds, features)
        return self.to_tokens(id_embeds[:, None] if isinstance(self.to_tokens, Resampler) else id_embeds)

    def person(
        self,
        id_embeds: torch.Tensor,
        features: torch.Tensor | None = None,
        negative_features: torch.Tensor | None = None,
    ) -> Person:
        """Tokens of somebody and, from a zero embedding, of nobody; see `forward` for the shapes."""
        return Person(self(id_embeds, features), self(torch.zeros_like(id_embeds[:1]), negative_features))

    # -- joining a UNet

    @property
    def is_attached(self) -> bool:
        """Whether the adapter is joined to a UNet."""
        return bool(self._unet)

    def is_attached_to(self, unet: nn.Module) -> bool:
        """Whether the adapter is joined to this UNet."""
        return any(attached is unwrap_module(unet) for attached in self._unet)

    def attach(self, unet: nn.Module) -> None:
        """Join a UNet. Until somebody is set by `drawing`, its output does not change by a bit.

        Raises:
            AdapterError: The adapter is attached already.
            BaseMismatchError: The UNet has other layers than the one this adapter was made for.
        """
        if self.is_attached:
            raise AdapterError("The adapter is attached already; detach it first.")
        unet = unwrap_module(unet)
        layers = cross_attention_layers(unet)
        found = {path: layer.inner_dim for path, layer in layers.items()}
        wanted = dict(self.config["layers"])
        width = {layer.cross_attention_dim for layer in layers.values()}
        if found != wanted or width != {self.config["cross_attention_dim"]}:
            raise BaseMismatchError(
                f"The adapter was made for {base_name(wanted, self.config['cross_attention_dim'])}, but the "
                f"pipeline's UNet is {base_name(found, *width)}."
            )
        self._bindings = {path: Binding(layer) for path, layer in layers.items()}
        self._unet_handle = unet.register_forward_pre_hook(self._before_unet, with_kwargs=True)
        self._unet = [unet]
        forget_compiled(unet)

    def detach(self) -> None:
        """Leave the UNet as it was; does nothing when not attached."""
        for binding in self._bindings.values():
            binding.remove()
        if self._unet_handle is not None:
            self._unet_handle.remove()
            forget_compiled(self._unet[0])
        self._bindings, self._unet, self._unet_handle = {}, [], None

    @property
    def scale(self) -> Scale:
        """How strongly the identity acts: a number, a value per block, or a `ScaleSchedule`."""
        return self._scale

    @scale.setter
    def scale(self, scale: Scale) -> None:
        check_scale(scale, self.config["layers"])
        self._scale = scale

    @contextmanager
    def drawing(
        self,
        persons: Sequence[Person],
        pictures: int,
        *,
        masks: Sequence[torch.Tensor] | None = None,
        perturbed: bool = False,
        num_train_timesteps: int = 1000,
    ) -> Iterator[None]:
        """Let persons act in all UNet calls inside the `with`; keys and values of all layers are made here, once.

        Args:
            persons: Everybody in the picture, from `person`.
            pictures: How many pictures are drawn at once, that is, the UNet's batch without guidance.
            masks: Where each person may appear, (height, width) in [0, 1] each; any size.
            perturbed: Whether perturbed-attention guidance is on.
            num_train_timesteps: The scheduler's; schedules read their progress from it.

        Raises:
            AdapterError: The adapter is not attached, or persons, masks and pictures do not fit together.
        """
        if not self.is_attached:
            raise AdapterError("The adapter is not attached to a UNet.")
        if self._drawing:
            raise AdapterError("The adapter is drawing already; a pipeline serves one call at a time.")
        if masks is not None and len(masks) != len(persons):
            raise AdapterError(f"{len(persons)} people need as many masks, not {len(masks)}.")
        if masks is None and len(persons) > 1:
            raise AdapterError(f"{len(persons)} people in one picture need a mask each (id_masks).")
        regions = Regions([mask.to(persons[0].tokens) for mask in masks]) if masks is not None else None
        self._num_train_timesteps = num_train_timesteps
        self._drawing = True
        try:
            for path, binding in self._bindings.items():
                branch = cast(IdentityBranch, self.branches[module_key(path)])
                made = keys_values(branch, persons, binding.heads, pictures, perturbed)
                binding.set(made, regions, layer_scale(self.scale, path, 0.0))
            yield
        finally:
            self._drawing = False
            for binding in self._bindings.values():
                binding.clear()

    def _before_unet(self, unet: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        first = next(iter(self._bindings.values()))
        if first.regions is not None:
            sample = args[0] if args else kwargs["sample"]
            first.regions.fit(*sample.shape[-2:])
        if isinstance(self._scale, ScaleSchedule):
            timestep = args[1] if len(args) > 1 else kwargs["timestep"]
            timestep = float(timestep.flatten()[0] if isinstance(timestep, torch.Tensor) else timestep)
            progress = 1 - timestep / self._num_train_timesteps
            for path, binding in self._bindings.items():
                binding.rescale(layer_scale(self._scale, path, progress))

    # -- files

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # pyright: ignore
        """Write `config.json`, the weights as safetensors and a model card; whole or not at all.

        Args:
            save_directory: Made if it does not exist.
            kwargs: As in diffusers.
        """
        native.save_pretrained(super().save_pretrained, save_directory, model_card(self.config), **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:  # pyright: ignore
        """Save to a hub repository; returns the address of the commit. See `idgen.checkpoints.native.push_to_hub`."""
        return native.push_to_hub(self, repo_id, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any) -> Self:  # pyright: ignore
        """Open an adapter from a folder or the hub; arguments as in diffusers.

        Raises:
            CheckpointError: It cannot be found, is not safetensors, or lacks tensors or has others.
        """
        return native.load_pretrained(super().from_pretrained, pretrained_model_name_or_path, **kwargs)
