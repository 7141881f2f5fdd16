"""Identity → tokens → cross-attention of a UNet."""

from .adapter import IdentityAdapter
from .call import is_hooked, lock_of, nothing_active
from .fusion import Fusion, RandomFusion
from .guard import Blocklist, blocklist_of, set_blocklist
from .identity_net import IdentityNet
from .layers import cross_attention_layers
from .persons import Person, Rows
from .scale import BlockScale, Scale, ScaleSchedule

__all__ = [
    "BlockScale",
    "Blocklist",
    "Fusion",
    "IdentityAdapter",
    "IdentityNet",
    "Person",
    "RandomFusion",
    "Rows",
    "Scale",
    "ScaleSchedule",
    "blocklist_of",
    "cross_attention_layers",
    "is_hooked",
    "lock_of",
    "nothing_active",
    "set_blocklist",
]
