"""Measure the distribution of an encoder's embeddings, and the similarity of invented people to real ones.

    python benchmarks/invented.py shards/ --output src/idgen/faces/dlib-resnet-v1.safetensors

The space is measured on the training split of a prepared set, one photo of each person. "1 in 10,000" is the cosine
that this share of the pairs of two real people exceed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro

from idgen.data.bank import IdentityBank
from idgen.data.manifest import Manifest
from idgen.faces.space import FaceSpace

PAIRS = 2_000_000


def main(shards: tyro.conf.Positional[str], /, output: Path | None = None, people: int = 200) -> None:
    """Print cosines of invented and real people.

    Args:
        shards: Folder or URL of a prepared set.
        output: Where to write the space.
        people: Number of invented people.
    """
    bank = IdentityBank(shards)
    labels = np.repeat(np.arange(len(bank.counts)), bank.counts)
    embeddings = np.asarray(bank.embeddings[: len(labels)])
    space = FaceSpace.fit(Manifest.open(shards).encoder, embeddings, labels)
    if output is not None:
        space.save(output)
    real = F.normalize(torch.from_numpy(embeddings[bank.starts]), dim=-1)
    drawn = [space.draw(torch.Generator().manual_seed(seed)) for seed in range(people)]
    invented = F.normalize(torch.stack(drawn), dim=-1)
    first, second = np.random.default_rng(0).integers(len(real), size=(2, PAIRS))
    others = first != second
    strangers = (real[first[others]] * real[second[others]]).sum(-1).numpy()
    rare = np.quantile(strangers, 0.9999)
    print(f"{space.people} real people: mean cosine {strangers.mean():.3f}, 1 in 10,000 {rare:.3f}")
    pairs = (invented @ invented.T)[torch.ones(people, people).triu(1) > 0]
    print(f"{people} invented people: mean cosine {pairs.mean():.3f}, largest {pairs.max():.3f}")
    print(f"largest cosine of an invented to a real person: {(invented @ real.T).max():.3f}")


if __name__ == "__main__":
    tyro.cli(main)
