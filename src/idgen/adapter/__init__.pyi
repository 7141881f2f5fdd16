from .adapter import IdentityAdapter
from .fusion import Fusion, RandomFusion
from .identity_net import IdentityNet
from .layers import cross_attention_layers
from .orthogonal import PRESETS, Ortho, Preset
from .placement import Placement
from .projection import Projection
from .projections import PROJECTIONS, ProjectionConfig
from .restorer import IdScaleCurve, Restorer
from .scale import BlockScale, Scale, ScaleSchedule
from .tokens import BatchLayout, IdentityTokens

__all__ = [
    "PRESETS",
    "PROJECTIONS",
    "BatchLayout",
    "BlockScale",
    "Fusion",
    "IdScaleCurve",
    "IdentityAdapter",
    "IdentityNet",
    "IdentityTokens",
    "Ortho",
    "Placement",
    "Preset",
    "Projection",
    "ProjectionConfig",
    "RandomFusion",
    "Restorer",
    "Scale",
    "ScaleSchedule",
    "cross_attention_layers",
]
