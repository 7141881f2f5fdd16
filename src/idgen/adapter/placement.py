"""Where the identity tokens act in a transformer block of the UNet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from ..errors import AdapterError

if TYPE_CHECKING:
    from .orthogonal import Ortho

Placement: TypeAlias = Literal["parallel", "sequential"]
"""`"parallel"` adds an attention to the identity tokens to the text's cross-attention (IP-Adapter). `"sequential"`
inserts a gated layer before cross-attention, which changes nothing until it is trained (FaceChain-FACT)."""


def check_placement(placement: Placement, ortho: Ortho | None, num_zero: int) -> None:
    """Check a placement, and that the settings of the fusion fit it.

    Raises:
        AdapterError: A value is invalid, or a sequential adapter is to be fused with the text attention.
    """
    if placement not in get_args(Placement):
        raise AdapterError(f"placement must be one of {', '.join(get_args(Placement))}, got {placement!r}.")
    from .orthogonal import check_fusion  # imports torch, which `idgen train --help` does without

    check_fusion(ortho, num_zero)
    if placement == "sequential" and (ortho is not None or num_zero):
        raise AdapterError(
            f"ortho={ortho!r} and num_zero={num_zero} fuse the identity with the text attention, which a sequential "
            "adapter does not touch; they need placement 'parallel'."
        )
