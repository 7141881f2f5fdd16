"""Put one person's face into any Stable Diffusion picture.

Importing the package gives diffusers' pipelines `load_id_adapter`, and switches off the usage reports of the libraries
that it uses.
"""

__version__ = "0.1.0"

from . import telemetry  # first: libraries read their switches when they are imported
from .adapter import IdentityAdapter, IdentityNet, ScaleSchedule
from .enroll import enroll
from .faces import FaceAnalyzer
from .identity import Identity
from .pipelines import register
from .tiny import load_tiny

__all__ = [
    "FaceAnalyzer",
    "Identity",
    "IdentityAdapter",
    "IdentityNet",
    "ScaleSchedule",
    "enroll",
    "load_tiny",
    "telemetry",
]

register()
