"""What photos of nobody are worth for training: a small recogniser, judged on pairs of real photos.

    idgen generate --random 500 --pictures 16 --set synthetic/
    python benchmarks/recogniser.py synthetic/ real/ --judges others/ --people 500 --photos 16

It is trained twice from the same start, once on invented people and once on as many real ones with at most as many
photos, and tells apart pairs of photos of real people whom neither training has seen.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import Image
from torch import nn

from idgen.data.bank import IdentityBank
from idgen.data.index import read_index
from idgen.data.manifest import Manifest
from idgen.data.storage import join, read_bytes
from idgen.evaluation.intervals import interval_of, resamples
from idgen.evaluation.scores import Scores

SIDE = 32
State: TypeAlias = dict[str, torch.Tensor]


def main(
    synthetic: tyro.conf.Positional[str],
    real: tyro.conf.Positional[str],
    /,
    judges: str | None = None,
    people: int = 500,
    photos: int = 16,
    judged: int = 200,
    epochs: int = 30,
    seed: int = 0,
) -> None:
    """Print the EER of both recognisers, and of one that was not trained.

    Args:
        synthetic: Prepared set of invented people.
        real: Prepared set of real people.
        judges: Prepared set of the real people of the test pairs, who should also be new to the model that drew the
            invented people; by default the last people of `real`.
        people: People of each training.
        photos: Photos of each person at most.
        judged: Real people with two photos who judge.
        epochs: Passes over the photos.
        seed: Seed of the start and of the batches.
    """
    torch.manual_seed(seed)
    start = network().state_dict()
    test = read_people(judges or real, slice(-judged, None), 2)
    print(f"untrained: {told(start, test)}")
    for name, shards, end in (("invented", synthetic, None), ("real", real, None if judges else -judged)):
        pictures = read_people(shards, slice(end), photos)[:people]
        state = train(start, pictures, epochs, seed)
        count = sum(map(len, pictures))
        print(f"{name}: {len(pictures)} people, {count} photos: {told(state, test)}", flush=True)


def network() -> nn.Sequential:
    """(n, 1, 32, 32) → (n, 64): four convolutions."""
    layers: list[nn.Module] = []
    for before, after in ((1, 24), (24, 48), (48, 96), (96, 96)):
        layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.PReLU(after)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 4, 64))


def train(
    start: dict[str, torch.Tensor], people: list[torch.Tensor], epochs: int, seed: int
) -> dict[str, torch.Tensor]:
    """A classifier of the people by cosines, scaled by 16 (NormFace, arXiv 1704.06369)."""
    torch.manual_seed(seed)
    net, pictures = network(), torch.cat(people)
    net.load_state_dict(start)
    labels = torch.cat([torch.full((len(part),), i) for i, part in enumerate(people)])
    centres = nn.Parameter(torch.randn(len(people), 64))
    optimiser = torch.optim.AdamW([*net.parameters(), centres], lr=2e-3, weight_decay=0.05)
    steps = epochs * (len(labels) // 64 + 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    net.train()
    for _ in range(steps):
        rows = torch.randint(len(labels), (64,))
        batch = augmented(pictures[rows])
        logits = 16 * F.normalize(net(batch), dim=-1) @ F.normalize(centres, dim=-1).T
        optimiser.zero_grad()
        F.cross_entropy(logits, labels[rows]).backward()
        optimiser.step()
        schedule.step()
    return net.state_dict()


def augmented(pictures: torch.Tensor) -> torch.Tensor:
    """Mirrored, shifted by up to two pixels, with another brightness and contrast."""
    mirrored = torch.where(torch.rand(len(pictures), 1, 1, 1) < 0.5, pictures.flip(-1), pictures)
    shifted = mirrored.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), (-2, -1))
    gain, offset = 1 + 0.2 * torch.randn(2, len(pictures), 1, 1, 1)
    return shifted * gain + 0.3 * (offset - 1)


@torch.no_grad()
def told(state: State, test: list[torch.Tensor]) -> str:
    """EER of one photo of each person against another one of everybody, with an interval over people."""
    net = network()
    net.load_state_dict(state)
    net.eval()
    one, two = (F.normalize(net(torch.stack([part[i] for part in test])), dim=-1).numpy() for i in (0, 1))
    numbers = np.arange(len(test))
    scores = Scores(one @ two.T, np.eye(len(test), dtype=bool), numbers, numbers)
    figure = interval_of([scores.rates(weights).eer for weights in resamples(len(test))])
    return f"EER {figure.value:.1%} ({figure.low:.1%} to {figure.high:.1%}) on {len(test)} real people"


def read_people(shards: str, which: slice, photos: int) -> list[torch.Tensor]:
    """Aligned grey crops of some of the people with two photos or more, (photos, 1, 32, 32) each."""
    bank, names = IdentityBank(shards), list(Manifest.open(shards).shards)
    chosen = np.flatnonzero(bank.references > 1)[which]
    tables = [
        read_index(join(shards, f"{name}.parquet"), ("crop_offset", "crop_length")).to_pydict() for name in names
    ]

    def crops(person: int) -> Iterator[torch.Tensor]:
        for face in range(bank.starts[person], bank.starts[person] + min(photos, bank.references[person])):
            shard, row = map(int, bank.rows[face])
            place = tables[shard]["crop_offset"][row], tables[shard]["crop_length"][row]
            crop = Image.open(io.BytesIO(read_bytes(join(shards, f"{names[shard]}.tar"), *place))).convert("L")
            pixels = np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
            yield torch.from_numpy((pixels - pixels.mean()) / (pixels.std() + 1e-3))[None]

    return [torch.stack(list(crops(int(person)))) for person in chosen]


if __name__ == "__main__":
    tyro.cli(main)
