"""Who is who: thresholds that are measured, people who are found, labels that are wrong, copies, and splits."""

from __future__ import annotations

import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from idgen.data.assign import AssignOptions
from idgen.data.clustering import centre_cosines, find_people, nearest_centres, person_sums, split_of, unit
from idgen.data.duplicates import same_files, same_pictures
from idgen.data.pairs import genuine_cosines, impostor_cosines
from idgen.data.quality import thumbnail
from idgen.data.thresholds import centre_reliability, centre_threshold, same_person_threshold, stranger_threshold
from idgen.errors import DataError
from idgen.faces import EncoderStatistics

from .sets import index, make_set, portrait, save


def crowd(people: int, photos: int, noise: float = 0.25, dim: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Random people and their photos: units and labels."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(people), photos)
    centres = unit(random.normal(size=(people, dim)))
    return unit(centres[labels] + noise * random.normal(size=(len(labels), dim)) / np.sqrt(dim)), labels


def test_people_are_found_again():
    units, labels = crowd(300, 4)
    order = np.random.default_rng(1).permutation(len(units))
    found = find_people(units[order], 0.8)
    assert found.max() + 1 == 300
    assert len({(int(a), int(b)) for a, b in zip(found, labels[order], strict=True)}) == 300
    _, first = np.unique(found, return_index=True)
    assert (np.diff(first) > 0).all()  # numbered in the order of their first face


def test_a_chain_of_look_alikes_is_not_one_person():
    """Each like the next, the ends not alike at all."""
    angles = np.linspace(0, np.pi, 40)
    units = unit(np.stack([np.cos(angles), np.sin(angles)], 1))
    assert (units[:-1] * units[1:]).sum(1).min() > 0.9
    assert find_people(units, 0.9).max() > 2


def test_a_part_that_is_too_large_for_a_table_is_linked_more_strictly(monkeypatch):
    monkeypatch.setattr("idgen.data.clustering._LINKED", 8)
    units, _ = crowd(20, 4, noise=0.1)
    units = unit(units + 3)  # everybody near everybody
    found = find_people(units, 0.7)
    assert (np.bincount(found) <= 8).all()


def test_thresholds_are_the_rates_they_are_named_after():
    units, labels = crowd(700, 3, noise=0.5)
    same = same_person_threshold(units, labels, "an encoder that nobody knows")
    impostors = impostor_cosines(units, labels, 1_000_000)
    assert (impostors > same).mean() == pytest.approx(1e-4, rel=0.05)
    assert (genuine_cosines(units, labels, 10_000) > same).mean() > 0.9
    centre = centre_threshold(units, labels)
    strangers = stranger_threshold(units, labels)
    assert centre is not None
    assert strangers is not None
    nearest, _ = nearest_centres(units, unit(person_sums(units, labels)), but=labels)
    assert (nearest > strangers).mean() == pytest.approx(1e-2, abs=5e-3)
    assert centre < strangers  # of many people one is always alike


def test_few_people_are_no_measurement():
    units, labels = crowd(5, 3)
    assert same_person_threshold(units, labels, "dlib-resnet-v1") == EncoderStatistics.of("dlib-resnet-v1").threshold(
        1e-4
    )
    assert centre_threshold(units, labels) is None
    assert stranger_threshold(units, labels) is None
    with pytest.raises(DataError, match=r"No threshold is known for 'another'.*--threshold"):
        same_person_threshold(units, labels, "another")


def test_a_photo_is_measured_against_its_persons_others():
    units = unit(np.array([[1.0, 0], [1, 0.1], [0, 1], [1, 1], [1, 0]]))
    cosines = centre_cosines(units, np.array([0, 0, 0, 1, -1]))
    assert cosines[0] == pytest.approx(units[0] @ unit((units[1] + units[2])[None])[0])
    assert cosines[3] == 1
    assert np.isnan(cosines[4])


def test_a_name_is_as_reliable_as_the_photo_is_like_its_person():
    """A stranger's photo about 0, the median photo 1, in between by the cosine; one photo alone says nothing."""
    units, labels = crowd(200, 4, noise=0.8)
    wrong = np.arange(0, 40, 4)
    units[wrong] = np.roll(units[wrong], 1, 0)
    labels[-4:] = [200, -1, 199, 199]
    cosines = centre_cosines(units, labels)
    found = centre_reliability(units, labels, cosines)
    assert found[wrong].max() < 0.5
    assert np.median(found[wrong]) < 0.1
    assert found[-4] == 1
    assert np.isnan(found[-3])
    several = np.setdiff1d(np.arange(len(units)), np.arange(len(units) - 4, len(units)))
    assert (found[several] == 1).mean() == pytest.approx(0.5, abs=0.01)
    order = several[np.argsort(cosines[several])]
    assert (np.diff(found[order]) >= 0).all()
    assert found[several].min() >= 0
    assert np.isnan(centre_reliability(*crowd(5, 3), np.ones(15))).all()


def test_copies_of_a_file_stay_under_the_name_that_fits():
    """The same file lies under two names; the second one's other photo looks like it."""
    units = unit(np.array([[1.0, 0], [0, 1], [1, 0], [1, 0.1]]))
    files, photos, people = np.array([0, 1, 0, 2]), np.arange(4), np.array([0, 0, 1, 1])
    assert same_files(files, photos, units, people).tolist() == [True, False, False, False]


def test_of_the_same_picture_the_largest_stays():
    crops = [np.asarray(portrait(side).resize((112, 112))) for side in (60, 112, 80, 50)]
    crops[2] = crops[2][:, ::-1]
    found = same_pictures(
        np.stack([thumbnail(crop) for crop in crops]),
        np.array([0, 0, 0, 1]),
        np.array([40.0, 80, 60, 20]),
        crops.__getitem__,
    )
    assert found.tolist() == [True, False, False, False]  # the last one is somebody else's


def test_a_smaller_copy_and_somebody_elses_photo_are_set_aside(monkeypatch, lfw_photos, tmp_path):
    """Real photos. Thresholds are measured on fewer people than anybody should."""
    monkeypatch.setattr("idgen.data.thresholds._PAIRS_ABOVE", 0.1)
    people = Counter(path.parent.name for path in lfw_photos.rglob("*.jpg")).most_common()
    many, other = people[0][0], people[-1][0]
    shutil.copytree(lfw_photos, tmp_path / "photos")
    folder = tmp_path / "photos" / many
    copy = Image.open(min(folder.glob("*.jpg")))
    copy.resize((copy.width * 4 // 5, copy.height * 4 // 5)).save(folder / "zz copy.jpg", quality=70)
    shutil.move(min((tmp_path / "photos" / other).glob("*.jpg")), folder / "zz wrong.jpg")
    manifest = make_set(tmp_path / "photos", tmp_path / "set")
    rows = {row["source"]: row for row in index(tmp_path / "set").to_pylist()}
    wrong, copied = rows[f"{many}/zz wrong.jpg"], rows[f"{many}/zz copy.jpg"]
    assert copied["aside"] == "near-duplicate"
    assert manifest.aside["near-duplicate"] == 1
    assert wrong["aside"] == "far-from-person"
    assert wrong["centre"] < manifest.thresholds["centre"]
    assert all(row["reliability"] is None for row in (wrong, copied))
    used = [row["reliability"] for row in rows.values() if row["aside"] is None and row["dropped"] is None]
    assert 0 <= min(used) < max(used) == 1
    assert wrong["embedding"] is not None  # aside, not deleted
    assert wrong["offset"] is not None
    assert manifest.aside["far-from-person"] <= 4


def test_a_second_face_is_an_entry_of_its_own(group_photo, tmp_path):
    """Of six people in a photo with a label one has the name; the others are people who are found."""
    (tmp_path / "photos" / "anna").mkdir(parents=True)
    shutil.copy(group_photo, tmp_path / "photos" / "anna" / "group.jpg")
    manifest = make_set(tmp_path / "photos", tmp_path / "set")
    rows = index(tmp_path / "set").to_pylist()
    assert [row["face"] for row in rows] == list(range(len(rows)))
    assert len(rows) >= 5
    assert len({tuple(row["box"]) for row in rows}) == len(rows)
    assert [row["person"] for row in rows].count("anna") == 1
    assert rows[0]["person"] == "anna"  # the largest
    assert manifest.counts["people"] == len(rows)
    assert all(row["person"].startswith("found-") for row in rows[1:])


def test_the_label_of_a_photo_of_two_belongs_to_the_face_that_fits(lfw_photos, tmp_path):
    """The person stands beside somebody larger; their photo alone says which face is theirs."""
    anna, other = sorted(lfw_photos.iterdir())[:2]
    mine, theirs = (Image.open(min(folder.glob("*.jpg"))) for folder in (anna, other))
    both = Image.new("RGB", (550, 320), "grey")
    both.paste(mine, (0, 0))
    both.paste(theirs.resize((300, 300)), (250, 0))
    save(mine, tmp_path / "photos" / "anna" / "1.png")
    save(both, tmp_path / "photos" / "anna" / "2.png")
    make_set(tmp_path / "photos", tmp_path / "set")
    rows = [row for row in index(tmp_path / "set").to_pylist() if row["source"] == "anna/2.png"]
    assert [(row["person"] == "anna", row["box"][0] < 250) for row in rows] == [(False, False), (True, True)]


def test_splits_are_by_person_and_stay_when_people_come():
    names = [f"person {i}" for i in range(2000)]
    shares = {"test": 0.1, "validation": 0.2}
    first = {name: split_of(name, shares, 3) for name in names}
    assert first == {name: split_of(name, shares, 3) for name in reversed(names[:1000])} | {
        name: first[name] for name in names[1000:]
    }
    counts = Counter(first.values())
    assert counts["test"] == pytest.approx(200, abs=45)
    assert counts["validation"] == pytest.approx(400, abs=60)
    assert first != {name: split_of(name, shares, 4) for name in names}


def test_nobody_is_in_two_splits_and_named_people_are_kept_for_the_test(lfw_photos, tmp_path):
    people = sorted(lfw_photos.iterdir())[:16]
    kept = people[-1].name
    options = AssignOptions(shares={"test": 0.2, "validation": 0.3}, test_people=frozenset({kept}), seed=5)
    for person in people:
        shutil.copytree(person, tmp_path / "photos" / person.name)
    manifest = make_set(tmp_path / "photos", tmp_path / "set", people=options, shard_size=10)
    rows = [row for row in index(tmp_path / "set").to_pylist() if row["person"] is not None]
    splits = {(row["person"], row["split"]) for row in rows}
    assert len(splits) == len({person for person, _ in splits})
    assert (kept, "test") in splits
    assert set(manifest.splits) == {"test", "train", "validation"}
    save(portrait(), tmp_path / "photos" / "zz new" / "1.png")
    make_set(tmp_path / "photos", tmp_path / "set", people=options, shard_size=10)
    again = {(row["person"], row["split"]) for row in index(tmp_path / "set").to_pylist() if row["person"] is not None}
    assert splits < again
