"""Identity → tokens → cross-attention of a UNet."""

from .adapter import IdentityAdapter
from .fusion import Fusion, RandomFusion
from .identity_net import IdentityNet
from .layers import cross_attention_layers
from .persons import Person
from .scale import BlockScale, Scale, ScaleSchedule

__all__ = [
    "BlockScale",
    "Fusion",
    "IdentityAdapter",
    "IdentityNet",
    "Person",
    "RandomFusion",
    "Scale",
    "ScaleSchedule",
    "cross_attention_layers",
]
