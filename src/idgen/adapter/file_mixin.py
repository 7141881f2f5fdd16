"""The part of `IdentityAdapter` that concerns files: its own format, public ones, and the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Self

from diffusers.configuration_utils import ConfigMixin
from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..checkpoints import native, public
from ..checkpoints.building import build
from ..checkpoints.model_card import model_card
from ..tiny import adapter_place
from .hub_mixin import HubMixin
from .layers import cross_attention_layers
from .projection import Projection
from .projection_config import upgrade_config


class FileMixin(HubMixin, ConfigMixin):
    """Reads and writes an adapter."""

    to_tokens: Projection

    upgrade_config = staticmethod(upgrade_config)

    @classmethod
    def from_config(cls, config: Any = None, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As in diffusers, also for the configurations of earlier versions.

        Values count as given. diffusers notes beside them which ones were defaults, and would ignore these, although
        they may have been changed since (`set_fusion`).
        """
        if config:
            config = {k: v for k, v in cls.upgrade_config(config).items() if k != "_use_default_values"}
        return super().from_config(config, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # pyright: ignore
        """Write `config.json`, the weights as safetensors and a model card, atomically.

        Args:
            save_directory: Created if it does not exist.
            kwargs: As in diffusers.
        """
        card = model_card(self.config, Path(save_directory).name, self.to_tokens.fuses_text)
        native.save_pretrained(super().save_pretrained, save_directory, card, **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        weight_name: str | None = None,
        variant: str | None = None,
        unet: nn.Module | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load an adapter from a folder, a file or the hub, in this package's format or a public one.

        Args:
            pretrained_model_name_or_path: `"InstantX/InstantID"`, a folder, `"ip-adapter-faceid_sd15.bin"`, …, or
                `"tiny"`, the built-in adapter.
            weight_name: The file in the folder or repository, if there are several.
            variant: The public format, if tensors and file names do not identify it; see docs/checkpoints.md.
            unet: The base model, for a public file made for another model than SD1.5 or SDXL.
            kwargs: As in diffusers.

        Raises:
            CheckpointError: The adapter cannot be found, is unsafe or of an unknown format, or has missing or
                unexpected tensors.
        """
        place = adapter_place(pretrained_model_name_or_path)
        file = public.find(place, weight_name, **kwargs)
        if file is None:
            return native.load_pretrained(cls, super().from_pretrained, place, **kwargs)
        base = {} if unet is None else cross_attention_layers(unwrap_module(unet))
        config, state = public.read(cls, file, variant, {path: layer.inner_dim for path, layer in base.items()})
        adapter = build(cls, config, state, str(file))
        if (dtype := kwargs.get("dtype", kwargs.get("torch_dtype"))) is not None:
            nn.Module.to(adapter, dtype=dtype)
        return adapter
