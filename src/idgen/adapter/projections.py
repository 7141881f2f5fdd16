"""`PROJECTIONS`, the table of all projections: identity embedding → tokens.

To add one, write a subclass of `Projection` and add its row: configurations, checkpoints, `idgen info`,
`idgen train --projection` and the documentation read the table.
"""

from __future__ import annotations

from .faceid import MLPProjection, PlusProjection, ResamplerProjection
from .photomaker import PhotoMakerProjection, PhotoMakerV2Projection
from .projection import Projection
from .pulid import IDFormerProjection, PuLIDProjection

PROJECTIONS: dict[str, type[Projection]] = {
    "mlp": MLPProjection,
    "resampler": ResamplerProjection,
    "plus": PlusProjection,
    "pulid": PuLIDProjection,
    "idformer": IDFormerProjection,
    "photomaker": PhotoMakerProjection,
    "photomaker-v2": PhotoMakerV2Projection,
}
