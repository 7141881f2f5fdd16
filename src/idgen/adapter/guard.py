"""The blocklist of a UNet: checked wherever an embedding becomes tokens that this UNet reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..errors import BlockedIdentityError
from ..identity import Identity


class Blocklist(Protocol):
    """An object that refuses identities; see `idgen.provenance.IdentityBlocklist`."""

    def check(self, person: Identity) -> None:
        """Raise `BlockedIdentityError` for a person on the list."""
        ...


def set_blocklist(unet: nn.Module, blocklist: Blocklist | None) -> None:
    """Set the blocklist of a UNet, for all pipelines and adapters that use it; `None` removes it.

    The list belongs to the UNet: copies of the UNet have it too, and it stays when adapters are unloaded.
    """
    unwrap_module(unet).__dict__["_id_blocklist"] = blocklist


def blocklist_of(unet: nn.Module) -> Blocklist | None:
    """The blocklist of a UNet, or `None`."""
    return unwrap_module(unet).__dict__.get("_id_blocklist")


def refuse_blocked(
    unets: Iterable[nn.Module], id_embeds: torch.Tensor | None, *, encoder: str, normalised: bool
) -> None:
    """Check embeddings against the blocklists of UNets.

    Args:
        unets: The UNets that an adapter is attached to.
        id_embeds: (rows, dim) or (rows, photos, dim), or `None` if the embeddings of tokens are not known.
        encoder: Face encoder of the embeddings.
        normalised: Whether they have unit length.

    Raises:
        BlockedIdentityError: A list refuses a person, or there is a list and the embeddings are not known.
    """
    for blocklist in [each for each in map(blocklist_of, unets) if each is not None]:
        if id_embeds is None:
            raise BlockedIdentityError("The UNet has a blocklist, which refuses tokens without their id_embeds.")
        for row in id_embeds.detach().float().cpu():
            photos = row.reshape(-1, row.shape[-1])
            photos = photos[photos.norm(dim=-1) > 0]  # zero means no identity
            if len(photos):
                blocklist.check(Identity(embeddings=photos, encoder=encoder, normalised=normalised))
