"""Put one person's face into any Stable Diffusion picture.

Importing the package gives diffusers' pipelines `load_id_adapter`.
"""

from .adapter import IdentityAdapter, IdentityNet, ScaleSchedule
from .enroll import enroll
from .faces import FaceAnalyzer
from .identity import Identity
from .pipelines import register
from .tiny import load_tiny

__version__ = "0.1.0"
__all__ = ["FaceAnalyzer", "Identity", "IdentityAdapter", "IdentityNet", "ScaleSchedule", "enroll", "load_tiny"]

register()
