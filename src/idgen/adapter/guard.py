"""A blocklist on a UNet: checked wherever an embedding becomes tokens that this UNet reads."""

from __future__ import annotations

from typing import Protocol

from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..identity import Identity


class Blocklist(Protocol):
    """What a guard needs; see `idgen.provenance.IdentityBlocklist`."""

    def check(self, person: Identity) -> None:
        """Raise `BlockedIdentityError` for a person on the list."""
        ...


def set_blocklist(unet: nn.Module, blocklist: Blocklist | None) -> None:
    """Guard a UNet, for all pipelines that share it and all adapters that are attached to it, or stop guarding it.

    The list belongs to the UNet, so it is copied with it and outlives adapters and pipelines.
    """
    unwrap_module(unet).__dict__["_id_blocklist"] = blocklist


def blocklist_of(unet: nn.Module) -> Blocklist | None:
    """The blocklist that guards a UNet."""
    return unwrap_module(unet).__dict__.get("_id_blocklist")
