"""Whether invented people are new, distinct people, what anonymising leaves, and what one photo's features gain.

    python benchmarks/invented.py shards/ --attributes people.csv --output src/idgen/faces/dlib-resnet-v1.safetensors

The space is measured on the training split of a prepared set, one photo of each person. How well drawn people can be
told apart is in the report of `idgen generate --random 200 --pictures 3 --set SET`.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro

from idgen.data.bank import IdentityBank
from idgen.data.manifest import Manifest
from idgen.evaluation.error_rates import error_rates
from idgen.evaluation.synthesis import random_people
from idgen.faces import EncoderStatistics
from idgen.faces.space import FaceSpace
from idgen.recentring import neighbours_centred

PAIRS = 2_000_000


def main(
    shards: tyro.conf.Positional[str],
    /,
    attributes: Path | None = None,
    output: Path | None = None,
    people: int = 1000,
) -> None:
    """Print the figures of docs/invented.md.

    Args:
        shards: Folder or URL of a prepared set.
        attributes: CSV with the column person and a column of numbers for each attribute.
        output: Where to write the space.
        people: Number of invented people.
    """
    bank = IdentityBank(shards)
    encoder = Manifest.open(shards).encoder
    real = unit(np.asarray(bank.embeddings[bank.starts]))
    embeddings = np.asarray(bank.embeddings[: int(bank.counts.sum())])
    space = FaceSpace.fit(encoder, embeddings, np.repeat(np.arange(len(bank.counts)), bank.counts))
    print(f"AUC of the membership of {len(real) // 2} people: {membership(encoder, real):.3f} (0.5 is chance)")
    told = {} if attributes is None else read_attributes(attributes, bank.people)
    for name, values in told.items():
        known = ~np.isnan(values)
        space = space.with_attribute(name, real[known], values[known])
    if output is not None:
        space.save(output)
    distances(encoder, real, people)
    for name, values in told.items():
        anonymise(space, name, real[~np.isnan(values)], values[~np.isnan(values)])
    neighbours(bank, real)


def unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)


def membership(encoder: str, real: np.ndarray) -> float:
    """Whether the density of a space tells the people that it was fitted on from others."""
    order = np.random.default_rng(0).permutation(len(real))
    inside, outside = np.array_split(order, 2)
    space = FaceSpace.fit(encoder, real[inside], np.arange(len(inside)))
    axes = unit(space.factor.numpy().T)
    variances = np.square(space.factor.numpy()).sum(0)

    def density(units: np.ndarray) -> np.ndarray:
        offsets = units - space.mean.numpy()
        along = np.square(offsets @ axes.T)
        return -(along / variances).sum(1) - (np.square(offsets).sum(1) - along.sum(1)) / space.remainder**2

    a, b = density(real[inside]), density(real[outside])
    ranks = np.concatenate([a, b]).argsort().argsort()[: len(a)]
    return float((ranks.sum() - len(a) * (len(a) - 1) / 2) / len(a) / len(b))


def distances(encoder: str, real: np.ndarray, people: int) -> None:
    """Similarities of invented people to each other and to the nearest real ones."""
    first, second = np.random.default_rng(0).integers(len(real), size=(2, PAIRS))
    others = first != second
    strangers = (real[first[others]] * real[second[others]]).sum(-1)
    rare = np.quantile(strangers, 0.9999)
    print(f"{len(real)} real people: mean cosine {strangers.mean():.3f}, 1 in 10,000 exceeds {rare:.3f}")
    drawn = np.stack([p.embedding(normalised=True).numpy() for p in random_people(people, encoder, real.shape[1])])
    pairs = (drawn @ drawn.T)[np.triu_indices(people, 1)]
    nearest = (drawn @ real.T).max(1)
    print(f"{people} invented people: mean cosine {pairs.mean():.3f}, largest {pairs.max():.3f}")
    print(f"nearest real person: {nearest.mean():.3f} on average, {nearest.max():.3f} at most")


def anonymise(space: FaceSpace, name: str, real: np.ndarray, values: np.ndarray) -> None:
    """How often turned people are still recognised, and how much of an attribute is left, by another estimator."""
    order = np.random.default_rng(0).permutation(len(real))  # the order of names can say something of the attribute
    real, values, half = real[order], values[order], len(real) // 2
    judge = space.with_attribute(name, real[half:], values[half:]).attributes[name]
    space = space.with_attribute(name, real[:half], values[:half])
    threshold = EncoderStatistics.of(space.encoder).threshold(1e-3)
    shown = torch.from_numpy(real[half:][:1000]).float()
    for angle in (60, 75, 90):
        for keep in ((), (name,)):
            generators = [torch.Generator().manual_seed(i) for i in range(len(shown))]
            turned = [space.turn(one, angle, g, keep) for one, g in zip(shown, generators, strict=True)]
            turned = F.normalize(torch.stack(turned), dim=-1)
            matched = ((shown * turned).sum(-1) > threshold).float().mean()
            left = np.corrcoef(shown @ judge, turned @ judge)[0, 1]
            print(f"{angle}°, keep {keep}: recognised {matched:.1%}, correlation of {name} {left:.3f}")


def neighbours(bank: IdentityBank, real: np.ndarray) -> None:
    """Verification of two photos of a person, alone and centred on neighbours among the photos and among strangers."""
    several = np.flatnonzero(bank.references > 1)[:1500]
    if len(several) < 2:
        return
    strangers = np.setdiff1d(np.arange(len(real)), several)[:8000]
    one, two = (unit(np.asarray(bank.embeddings[bank.starts[several] + i])) for i in (0, 1))
    print(f"two photos of {len(several)} people: {verified(one, two)}")
    for count in (1, 2, 4):
        both = neighbours_centred(np.concatenate([one, two]), np.concatenate([one, two]), count)
        print(f"{count} neighbours among all photos: {verified(both[: len(one)], both[len(one) :])}")
        alone = [neighbours_centred(photos, real[strangers], count) for photos in (one, two)]
        print(f"{count} neighbours among strangers: {verified(*alone)}")


def verified(one: np.ndarray, two: np.ndarray) -> str:
    cosines = one @ two.T
    same = np.eye(len(one), dtype=bool)
    rates = error_rates(cosines[same], cosines[~same])
    return f"EER {rates.eer:.2%}, FNMR at FMR 1e-3 {rates.fnmr:.2%}"


def read_attributes(file: Path, people: list[str]) -> dict[str, np.ndarray]:
    """Attribute → (people,) values, NaN where they are not known."""
    with file.open(newline="") as opened:
        rows = {row.pop("person"): row for row in csv.DictReader(opened)}
    names = next(iter(rows.values()))
    return {name: np.array([float(rows.get(one, {}).get(name) or "nan") for one in people]) for name in names}


if __name__ == "__main__":
    tyro.cli(main)
