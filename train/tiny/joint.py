"""Train the UNet together with a new adapter, so that the base learns that a prompt can mean a person.

    python train/tiny/joint.py --config train/tiny/joint.toml --base BASE --train_data_dir SHARDS --output_dir OUT

Takes the options of `idgen train denoise`. Beside the adapter it writes `OUT/base`, the base with the trained UNet.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from recipe.with_base import DenoiserWithBase, copy_settings

from idgen.adapter.fusion import Fusion, RandomFusion
from idgen.training.base import BaseModel
from idgen.training.parsing import parse
from idgen.training.run import train_denoising

WORDS_ALONE = 0.25


class WordsAlone(RandomFusion):
    """Leaves out the adapter's tokens in a share of the samples, in which only `<id>` can mean the person."""

    def at(self, u: torch.Tensor) -> Fusion:
        """Factors for u in [0, 1), (images,)."""
        return Fusion(torch.ones_like(u), (u >= WORDS_ALONE).to(u))


class JointDenoiser(DenoiserWithBase):
    """`IdentityDenoiser`, with the UNet among the trained modules."""

    def __init__(self, base: BaseModel, *arguments: Any, **keywords: Any) -> None:
        super().__init__(base, *arguments, **keywords)
        self.unet = base.unet.requires_grad_(True)
        self.fusion = WordsAlone()


def main() -> None:
    config = parse("denoise", sys.argv[1:], "joint.py")
    train_denoising(config, JointDenoiser)
    copy_settings(config.base, config.output_dir)


if __name__ == "__main__":
    main()
