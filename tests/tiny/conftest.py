"""The recipe lies outside the package: its folder goes on the path, as it does when `train.py` runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

TRAIN = Path(__file__).parents[2] / "train"
sys.path.insert(0, str(TRAIN / "tiny"))


@pytest.fixture(scope="session")
def train_folder() -> Path:
    return TRAIN
