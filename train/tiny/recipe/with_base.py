"""Trainings that change the UNet too."""

from __future__ import annotations

import shutil
from pathlib import Path

from diffusers import UNet2DConditionModel

from idgen.data.framing import FRAMING
from idgen.tiny import base_place
from idgen.tiny.usage import USAGE
from idgen.training.denoiser import IdentityDenoiser

BASE = "base"
"""Folder of the base in that of the adapter."""


class DenoiserWithBase(IdentityDenoiser):
    """Its checkpoints contain the base."""

    def save(self, folder: Path) -> None:
        """Write the adapter's folder, with the base in it."""
        super().save(folder)
        self.base.pipeline.save_pretrained(folder / BASE)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        super().load(folder)
        saved = UNet2DConditionModel.from_pretrained(folder / BASE, subfolder="unet")
        self.base.unet.load_state_dict(saved.state_dict())


def copy_settings(base: str, output: Path) -> None:
    """Copy to the trained base what diffusers does not save, how faces are framed and how the model is used, and the
    tokenizer as it was, since one that was used is saved with the lengths it was used with.
    """
    given, trained = Path(base_place(base)), output / BASE
    for file in (FRAMING, USAGE):
        shutil.copy(given / file, trained)
    shutil.copytree(given / "tokenizer", trained / "tokenizer", dirs_exist_ok=True)
