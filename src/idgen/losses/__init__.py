"""Losses: callables that return one value per sample. `LOSSES` is their table, `WeightedTerms` their weighted sum."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
