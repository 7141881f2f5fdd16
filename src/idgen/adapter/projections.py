"""`PROJECTIONS`, the table of all projections: identity embedding → tokens.

To add one, write a subclass of `Projection` and add its row: configurations, checkpoints, `idgen info`,
`idgen train --projection` and the documentation read the table. The classes are imported when they are used, because
`--help` needs the table without torch.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .projection import Projection

Size: TypeAlias = str | int | bool | None
ProjectionConfig: TypeAlias = str | Mapping[str, Size]
"""The type of a projection, or a mapping with its type and sizes: `{"type": "resampler", "depth": 2}`."""

PROJECTIONS: dict[str, type[Projection] | str] = {
    "mlp": "idgen.adapter.faceid:MLPProjection",
    "resampler": "idgen.adapter.faceid:ResamplerProjection",
    "plus": "idgen.adapter.faceid:PlusProjection",
    "rows": "idgen.adapter.rows:RowsProjection",
    "pulid": "idgen.adapter.pulid:PuLIDProjection",
    "idformer": "idgen.adapter.pulid:IDFormerProjection",
    "photomaker": "idgen.adapter.photomaker:PhotoMakerProjection",
    "photomaker-v2": "idgen.adapter.photomaker:PhotoMakerV2Projection",
    "none": "idgen.adapter.no_tokens:NoTokens",
}
"""Type → class, or its place as MODULE:CLASS."""


def projection_class(name: str) -> type[Projection]:
    """The class of a type in the table."""
    found = PROJECTIONS[name]
    return pkgutil.resolve_name(found) if isinstance(found, str) else found
