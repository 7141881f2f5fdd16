"""Identity → tokens → cross-attention of a UNet."""

from .adapter import IdentityAdapter
from .layers import cross_attention_layers
from .persons import Person
from .scale import BlockScale, Scale, ScaleSchedule

__all__ = ["BlockScale", "IdentityAdapter", "Person", "Scale", "ScaleSchedule", "cross_attention_layers"]
