"""People who are somebody else: never the asked one, nor one too like them; the nearest where it is asked for."""

from __future__ import annotations

import pickle
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from idgen.data.bank import IdentityBank
from idgen.data.clustering import unit
from idgen.errors import DataError
from tests.processes import start

from .sets import index


def centres(bank: IdentityBank) -> np.ndarray:
    return np.stack([bank.centre(person) for person in range(len(bank))])


def test_every_usable_face_is_in_it_person_by_person(lfw_set):
    bank = IdentityBank(lfw_set)
    rows = [row for row in index(lfw_set).to_pylist() if row["dropped"] is None and row["aside"] is None]
    assert len(bank.embeddings) == len(rows) == bank.counts.sum()
    wanted = {(row["person"], tuple(row["embedding"])) for row in rows}
    found = {
        (bank.people[person], tuple(bank.embeddings[face].tolist()))
        for face, person in enumerate(bank.person_of(np.arange(len(rows))))
    }
    assert found == wanted


def test_the_batchs_own_people_are_never_drawn(lfw_set):
    bank = IdentityBank(lfw_set, count=1000)
    asked = torch.tensor([0, 3, 5])
    for number in range(20):
        embeds, persons = bank.draw(asked, number)
        assert len(persons) == len(set(persons.tolist())) == len(bank) - 3  # a small set: all others
        assert not set(persons.tolist()) & {0, 3, 5}
        for embedding, person in zip(embeds, persons.tolist(), strict=True):
            faces = bank.embeddings[bank.starts[person] : bank.starts[person] + bank.counts[person]]
            assert (faces == embedding.numpy()).all(1).any()


def test_a_draw_follows_from_its_number(lfw_set):
    first, second = IdentityBank(lfw_set, count=6), IdentityBank(lfw_set, count=6)
    asked = torch.tensor([1])
    assert torch.equal(first.draw(asked, 4)[0], second.draw(asked, 4)[0])
    assert not torch.equal(first.draw(asked, 4)[1], first.draw(asked, 5)[1])
    assert not torch.equal(first.draw(asked, 4)[1], IdentityBank(lfw_set, count=6, seed=1).draw(asked, 4)[1])
    assert len(first.draw(asked, 4)[1]) == 6


def test_people_who_are_too_similar_carry_the_asked_persons_number(lfw_set):
    """So that a loss takes them for the same person."""
    plain = IdentityBank(lfw_set, count=1000)
    likeness = centres(plain) @ centres(plain).T
    np.fill_diagonal(likeness, -1)
    asked, twin = np.unravel_index(likeness.argmax(), likeness.shape)
    threshold = float(likeness.max()) - 0.03
    bank = IdentityBank(lfw_set, count=1000, too_similar=threshold)
    embeds, persons = bank.draw(torch.tensor([asked, 0]), 0)
    assert embeds.shape[:2] == persons.shape == (2, len(bank) - len({int(asked), 0}))
    cosines = unit(embeds[0].numpy()) @ bank.centre(int(asked))
    assert (cosines >= threshold).any()
    assert ((persons[0].numpy() == asked) == (cosines >= threshold)).all()
    few = IdentityBank(lfw_set, count=3, too_similar=threshold).draw(torch.tensor([asked]), 0)[1]
    assert twin not in few
    assert asked not in few  # there are others enough


def test_hard_negatives_are_the_nearest_of_eight_times_as_many(lfw_set):
    count = 2
    bank = IdentityBank(lfw_set, count=count, hard=True)
    asked = torch.tensor([2, 4])
    embeds, persons = bank.draw(asked, 0)
    assert embeds.shape == (2, count, 128)
    drawn = IdentityBank(lfw_set, count=8 * count + 2).draw(asked, 0)  # more than the hard draw looks at
    assert len(drawn[1]) < len(bank)
    for i, person in enumerate(asked.tolist()):
        cosines = unit(embeds[i].numpy()) @ bank.centre(person)
        assert (np.diff(cosines) <= 0).all()
        usual = unit(np.array(bank.embeddings[bank.starts])) @ bank.centre(person)
        assert cosines.mean() > np.median(usual)
        assert person not in persons[i]


def test_hard_and_too_similar_together_leave_out_the_nearest(lfw_set):
    hard = IdentityBank(lfw_set, count=4, hard=True)
    asked = torch.tensor([2])
    nearest = unit(hard.draw(asked, 0)[0][0].numpy()) @ hard.centre(2)
    both = IdentityBank(lfw_set, count=4, hard=True, too_similar=float(nearest[1]) - 1e-4).draw(asked, 0)[0][0]
    assert (unit(both.numpy()) @ hard.centre(2)).max() < nearest[1]


def test_a_process_is_sent_the_place_not_the_embeddings(lfw_set):
    bank = IdentityBank(lfw_set, count=5)
    assert isinstance(getattr(bank.embeddings.base, "base", None), np.memmap)
    sent = pickle.dumps(bank)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent).draw(torch.tensor([0]), 1)[0], bank.draw(torch.tensor([0]), 1)[0])


def draw_from_millions(shards: Path) -> None:
    """Write down by how much the process grew, in kB; its memory is no other test's."""
    bank = IdentityBank(str(shards), count=64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(10):
        bank.draw(torch.tensor([number]), number)
    (shards / "grown").write_text(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def test_millions_of_people_without_loading_them(tmp_path: Path):
    """A bank of two million people, a gigabyte, most of it holes in the file: a draw reads only what it draws."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    people = 2_000_000
    folder = tmp_path / "bank"
    folder.mkdir()
    numbers = pa.array(range(people), pa.int64())
    ones = pa.array(np.ones(people, np.int64))
    split = pa.DictionaryArray.from_arrays(pa.array(np.zeros(people, np.int8)), ["train"]).cast(pa.string())
    table = pa.table({"person": numbers.cast(pa.string()), "split": split, "start": numbers, "count": ones})
    pq.write_table(table, folder / "people.parquet")
    for name, kind, width in (("embeddings", "float32", 128), ("rows", "int64", 2)):
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, (people, width)).flush()
    process = start(draw_from_millions, tmp_path)
    process.join()
    assert process.exitcode == 0
    assert int((tmp_path / "grown").read_text()) < 100_000


def test_an_empty_split_is_our_error(lfw_set):
    with pytest.raises(DataError, match="There are no people in the split 'test'"):
        IdentityBank(lfw_set, "test")
