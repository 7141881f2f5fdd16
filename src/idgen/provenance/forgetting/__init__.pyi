from .settings import ForgettingSettings
from .tokens import forget

__all__ = ["ForgettingSettings", "forget"]
