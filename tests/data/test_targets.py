"""Photos that may be targets and not references, and photos whose landmarks are known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageFilter

from idgen.data.assign import AssignOptions, assign_people
from idgen.data.bank import IdentityBank
from idgen.data.dataset import PairedIdentityDataset
from idgen.data.far import far_references
from idgen.data.framing import AlignedFraming
from idgen.data.index import read_index, write_index
from idgen.data.metadata import UnclearMetadataError, flag, metadata_of, points
from idgen.data.pairing import Pairing
from idgen.faces import FaceAnalyzer

from . import sets

POINTS = [44.0, 50.5, 82, 50, 63, 70, 47, 92, 80, 91]
"""Of a face in a picture of 128 px; the detector finds another one, or none where the picture is blurred."""


def drawing(shift: int = 0) -> Any:
    """A picture in which no face is found."""
    return sets.portrait(128, shift).filter(ImageFilter.GaussianBlur(12)).convert("L")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos of Anna, two drawings of her, and drawings of people who have no photo."""
    folder = tmp_path_factory.mktemp("photos")
    told = {"reference": False, "landmarks": POINTS}
    for name, picture, metadata in (
        ("anna/1.png", sets.portrait(128), {}),
        ("anna/2.png", sets.portrait(128, 16), {"landmarks": POINTS}),
        ("anna/drawn-1.png", drawing(), told | {"caption": "a drawing of <id>"}),
        ("anna/drawn-2.png", drawing(9), told),
        ("bea/drawn.png", drawing(20), told),
        ("drawn.png", drawing(30), told),
        ("anna/wrong.png", sets.portrait(128, 30), {"landmarks": POINTS[:9]}),
        ("anna/perhaps.png", sets.portrait(128, 40), {"reference": "perhaps"}),
    ):
        sets.save(picture, folder / name)
        if metadata:
            (folder / name).with_suffix(".json").write_text(json.dumps(metadata))
    return folder


@pytest.fixture(scope="module")
def shards(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("shards") / "set"
    manifest = sets.make_set(photos, output)
    sets.assert_nothing_is_missing(manifest, output, 8)
    assert (manifest.counts["usable"], manifest.counts["pairs"]) == (4, 6)  # a photo, or a drawing, and another photo
    return str(output)


def test_every_photo_has_its_fate(shards: str) -> None:
    usable = ("anna/1.png", "anna/2.png", "anna/drawn-1.png", "anna/drawn-2.png")
    assert sets.fates(shards) == dict.fromkeys(usable, "usable") | {
        "bea/drawn.png": "no-reference",
        "drawn.png": "no-reference",
        "anna/wrong.png": "unclear-landmarks",
        "anna/perhaps.png": "unclear-reference",
    }


def test_known_landmarks_are_used_and_nothing_is_detected(shards: str, photos: Path, analyzer: FaceAnalyzer) -> None:
    rows = {row["source"]: row for row in sets.index(shards).to_pylist() if row["face"] is not None}
    for name in ("anna/2.png", "anna/drawn-1.png"):
        assert rows[name]["landmarks"] == POINTS
        (face,) = analyzer.analyze_batch([photos / name], [np.array(POINTS).reshape(5, 2)])[0]
        assert np.allclose(rows[name]["embedding"], face.embedding, atol=1e-4)
    assert rows["anna/1.png"]["landmarks"] != POINTS
    assert not analyzer.analyze(photos / "anna/drawn-1.png")


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("references", [1, 2, 3])
def test_a_target_is_never_a_reference(shards: str, ratio: float, references: int) -> None:
    """Whatever the pairing, only photos are references; a drawing is compared with what it was drawn from."""
    pairing = Pairing(paired_ratio=ratio, references=references, drop_identity=0, drop_both=0)
    dataset = PairedIdentityDataset(shards, framing=AlignedFraming(), pairing=pairing)
    bank = dataset.bank
    assert bank.references.tolist() == [2]
    for epoch in range(4):
        for sample in (dataset[epoch, face] for face in range(len(dataset))):
            assert sample.references.max() < 2
            assert sample.is_reference == (sample.face < 2)
            known = sample.face if sample.is_reference else int(sample.references[0])
            assert np.array_equal(sample.target_embeds, bank.embeddings[known])
            assert np.allclose(sample.id_embeds, bank.embeddings[sample.references])
            if ratio == 1 and sample.is_reference:
                assert sample.face not in sample.references


def test_a_pair_is_as_reliable_as_its_photos(shards: str, tmp_path: Path) -> None:
    """The target's number times the references' mean; 1 without a number, as in a set of an earlier version."""
    folder = Path(shutil.copytree(shards, tmp_path / "set"))
    (file,) = folder.glob("*.parquet")
    table = read_index(str(file))
    of = dict(zip(("anna/1.png", "anna/2.png"), (0.5, 0.25), strict=True))
    numbers = [of.get(source) for source in table["source"].to_pylist()]
    write_index(str(file), table.set_column(len(table.schema) - 1, "reliability", [numbers]))

    def pairs(ratio: float) -> dict[tuple[str, ...], float]:
        pairing = Pairing(paired_ratio=ratio)
        data = PairedIdentityDataset(str(folder), framing=AlignedFraming(), pairing=pairing)
        rows = table["source"].to_pylist()
        name = [rows[int(row)] for _, row in data.bank.rows]
        samples = (data[epoch, face] for epoch in range(4) for face in range(len(data)))
        return {(name[s.face], *(name[i] for i in s.references)): s.reliability for s in samples}

    a, b = of
    assert pairs(0.0).items() >= {(a, a): 1, (b, b): 1}.items()
    drawn = {("anna/drawn-1.png", name): value for name, value in of.items()}
    assert pairs(1.0).items() >= ({(a, b): 0.125, (b, a): 0.125} | drawn).items()
    write_index(str(file), table.drop_columns(["reliability"]))
    assert {*pairs(1.0).values()} == {1.0}
    assign_people(str(folder), [file.stem], "dlib-resnet-v1", AssignOptions(shares={}))
    assert read_index(str(file)).schema.names == table.schema.names


def test_drawings_say_nothing_of_how_people_look(shards: str) -> None:
    """The centre of a person, and the draws of other people, are of photos."""
    bank = IdentityBank(shards)
    photos = bank.embeddings[:2] / np.linalg.norm(bank.embeddings[:2], axis=1, keepdims=True)
    mean = photos.sum(0) / np.linalg.norm(photos.sum(0))
    assert np.allclose(bank.centre(0), mean, atol=1e-5)
    assert np.allclose(bank.centres[0], mean, atol=1e-5)
    rows = sets.index(shards).to_pylist()
    assert all(row["centre"] is None for row in rows if row["reference"] is False)


@pytest.mark.parametrize(
    "value", [POINTS, str(POINTS), " ".join(map(str, POINTS)), [POINTS[i : i + 2] for i in range(0, 10, 2)]]
)
def test_landmarks_are_read_in_every_form(value: Any) -> None:
    assert points(metadata_of({"landmarks": value})["landmarks"]) == tuple(map(float, POINTS))


def test_unclear_metadata_is_refused() -> None:
    for text in ("maybe", "2", "wahr"):
        with pytest.raises(UnclearMetadataError, match="reference"):
            flag(text)
    for value in ([1, 2], [*POINTS, 1], [*POINTS[:9], float("nan")], [5.0] * 10, "here", [*POINTS[:9], "x"]):
        with pytest.raises(UnclearMetadataError, match="landmarks"):
            points(metadata_of({"landmarks": value})["landmarks"])
    assert [flag(text) for text in (None, "True", "1", "no", "FALSE")] == [True, True, True, False, False]
    assert [metadata_of({"reference": value}) for value in (True, 0, None, "", float("nan"))] == [
        {"reference": "true"},
        {"reference": "0"},
        {},
        {},
        {},
    ]


def test_far_references_are_at_least_half_as_far_as_the_farthest() -> None:
    """Whatever is measured; where nothing is known, no photo is left out."""
    target = {"yaw": 0.0, "date": "2010", "origin": "a"}
    others = [
        {"yaw": 5.0, "date": "2010-02-03", "origin": "a"},
        {"yaw": -40.0, "date": "1999", "origin": "b"},
        {"yaw": 21.0, "date": "2030-01-01T10:00", "origin": None},
        {"yaw": None, "date": "long ago", "origin": "b"},
    ]
    assert far_references("pose", target, others) == [False, True, True, False]
    assert far_references("time", target, others) == [False, True, True, False]
    assert far_references("source", target, others) == [False, True, False, True]
    for far in ("pose", "time", "source"):
        assert far_references(far, {}, others) == [True] * 4


def test_references_of_samples_are_far_if_asked(tmp_path: Path) -> None:
    """Of three photos, two are from one archive: their reference is always the third."""
    for number, origin in enumerate(("press", "press", "snapshot")):
        sets.save(sets.portrait(128, 20 * number), tmp_path / "in" / "anna" / f"{number}.png")
        told = {"landmarks": POINTS, "source": origin, "date": 2000 + number}
        (tmp_path / "in" / "anna" / f"{number}.json").write_text(json.dumps(told))
    sets.make_set(tmp_path / "in", tmp_path / "set")
    rows = sets.index(tmp_path / "set")
    assert rows["origin"].to_pylist() == ["press", "press", "snapshot"]
    assert rows["date"].to_pylist() == ["2000", "2001", "2002"]
    data = PairedIdentityDataset(str(tmp_path / "set"), framing=AlignedFraming(), pairing=Pairing(far="source"))
    seen = {(face, int(data[epoch, face].references[0])) for epoch in range(6) for face in range(3)}
    assert seen == {(0, 2), (1, 2), (2, 0), (2, 1)}
