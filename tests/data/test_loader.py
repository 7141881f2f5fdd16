"""What processes of a run read together: every face once an epoch, pictures of one size in a batch, k references."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen.data.dataset import PairedIdentityDataset
from idgen.data.framing import AlignedFraming, PhotoFraming
from idgen.data.loader import PairedLoader
from idgen.data.pairing import Pairing
from idgen.errors import DataError

from .sets import make_set, save


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (3, 0), (2, 2)])
def test_every_sample_is_seen_once_in_an_epoch(world, workers, lfw_set):
    """By the processes of several nodes, each with workers that read for it."""
    data = PairedIdentityDataset(lfw_set, framing=AlignedFraming(64))
    batch = 4
    whole = -(-len(data) // batch)
    seen: Counter[int] = Counter()
    for rank in range(world):
        loader = PairedLoader(data, batch, rank=rank, world=world, workers=workers, window=2)
        mine = range(rank, 2 * whole, world)  # this process's batches of two epochs
        for number, samples in zip(mine, loader, strict=False):
            if number < whole:
                seen.update(sample.face for sample in samples)
    assert seen == Counter(range(len(data)))


def test_photos_of_all_shapes_come_in_batches_of_one(lfw_photos: Path, tmp_path):
    """Wide, high and square ones; no face leaves its picture."""
    person = max(lfw_photos.iterdir(), key=lambda folder: len(list(folder.iterdir())))
    for i, file in enumerate(sorted(person.glob("*.jpg"))[:3]):
        for j, (width, height) in enumerate(((480, 250), (250, 400), (250, 250))):
            wide = Image.new("RGB", (width, height), (20 * i, 90, 120))
            wide.paste(Image.open(file), ((width - 250) // 2, height - 250))
            save(wide, tmp_path / "photos" / f"person {j}" / f"{i}.png")
    make_set(tmp_path / "photos", tmp_path / "set")
    data = PairedIdentityDataset(str(tmp_path / "set"), framing=PhotoFraming(128, 32))
    shapes = set()
    for samples in itertools.islice(PairedLoader(data, 2), 6):
        (shape,) = {tuple(sample.picture.shape) for sample in samples}
        shapes.add(shape)
        for sample in samples:
            assert (sample.landmarks >= 0).all()
            assert (sample.landmarks[:, 0] < shape[1]).all()
            assert (sample.landmarks[:, 1] < shape[0]).all()
    assert len(shapes) == 3


def test_several_references_are_different_photos_as_far_as_there_are(lfw_set):
    data = PairedIdentityDataset(lfw_set, framing=AlignedFraming(64), pairing=Pairing(references=3, drop_identity=0))
    counts = {face: int(data.bank.counts[data[face].person]) for face in range(0, len(data), 3)}
    assert max(counts.values()) > 3
    for face, count in counts.items():
        references = data[face].references
        assert references.shape == (3,)
        assert (data.bank.person_of(references) == data[face].person).all()
        if count > 3:
            assert len(set(references.tolist())) == 3
        assert (face in references) == (count == 1)
    face = max(counts, key=lambda face: counts[face])
    assert len({tuple(np.sort(data[epoch, face].references)) for epoch in range(8)}) > 1


def test_a_curriculum_goes_from_the_same_photo_to_others_and_is_resumed(lfw_set):
    """The share of other photos is 0 in the first batch and rises; a resumed loader goes on with the same samples."""
    pairing = Pairing(curriculum=12, drop_identity=0, drop_both=0)
    data = PairedIdentityDataset(lfw_set, framing=AlignedFraming(64), pairing=pairing)

    def others(samples):
        faces = [s for s in samples if data.bank.counts[s.person] > 1]
        return [s.face not in s.references for s in faces]

    loader = PairedLoader(data, 16)
    stream = iter(loader)
    batches = [next(stream) for _ in range(6)]
    state = loader.state_dict()
    batches += itertools.islice(stream, 10)
    assert not any(others(batches[0]))
    assert 0 < np.mean([each for batch in batches[3:9] for each in others(batch)]) < 1
    assert all(each for batch in batches[12:] for each in others(batch))
    again = PairedLoader(data, 16)
    again.load_state_dict(state)
    for expected, found in zip(batches[6:], again, strict=False):
        assert [(s.face, *s.references) for s in found] == [(s.face, *s.references) for s in expected]
    assert all(others([data[face] for face in range(len(data))])), "a sample out of a run is one of its end"
    with pytest.raises(DataError, match="curriculum must be >= 0"):
        Pairing(curriculum=-1)
