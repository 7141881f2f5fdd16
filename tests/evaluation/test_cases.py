"""Who is evaluated: the same people from folders and from every kind of table, by the rules of `idgen prepare`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from idgen.data.sources import find_sources
from idgen.errors import EvaluationError
from idgen.evaluation.cases import Case, load_cases, together

PEOPLE = {
    "anna": ("1.jpg", "2.JPG"),
    "Zoë": ("a.b.heic", "c.webp"),
    "0": ("::1.png",),
    "Dr. Who": ("deep/1.jpg", "deep/2.jpg"),
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """People, and what else lies in folders."""
    junk = ("._1.jpg", ".DS_Store", "1.txt", "1.json", "1.mask.png", "1.cls", "notes.pdf")
    for person, names in PEOPLE.items():
        for name in (*names, *(junk if person == "anna" else ())):
            path = tmp_path / "photos" / person / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    (tmp_path / "photos" / ".git").mkdir()
    (tmp_path / "photos" / "__MACOSX" / "anna").mkdir(parents=True)
    return tmp_path / "photos"


def told(cases: list[Case]) -> dict[str, tuple[Path | None, ...]]:
    return {case.name: (*case.references, case.target) for case in cases}


def test_folders(photos):
    expected = {
        person: (photos / person / names[0], photos / person / names[1] if len(names) > 1 else None)
        for person, names in PEOPLE.items()
    }
    assert told(load_cases(photos)) == expected
    assert {source.label for source in find_sources(str(photos), "folders") if source.photo} == set(expected)


@pytest.mark.parametrize(
    ("encoding", "separator"), [("utf-8", ","), ("utf-8-sig", ";"), ("cp1252", ";"), ("utf-16", "\t"), (None, "")]
)
def test_tables(encoding, separator, photos):
    rows = [
        {
            "person": person,
            "reference": f"{person}/{names[0]}",
            "target": f"{person}/{names[1]}" if len(names) > 1 else "",
        }
        for person, names in PEOPLE.items()
    ]
    if encoding is None:
        table = photos / "table.jsonl"
        table.write_text(
            "\n".join(json.dumps(row | {"person": 0 if row["person"] == "0" else row["person"]}) for row in rows)
        )
    else:
        table = photos / "table.csv"
        with table.open("w", encoding=encoding, newline="") as file:
            out = csv.DictWriter(file, list(rows[0]), delimiter=separator)
            out.writeheader()
            out.writerows(rows)
    assert told(load_cases(table)) == told(load_cases(photos))


def test_groups_prompts_and_identities(photos):
    (photos / "t.csv").write_text(
        "person,reference,identity,group,noun,prompt\nanna,anna/1.jpg,,f,woman,<id> laughs\nben,,anna/1.jpg,,,\n"
    )
    anna, ben = load_cases(photos / "t.csv")
    assert (anna.group, anna.noun, anna.prompt, anna.identity) == ("f", "woman", "<id> laughs", None)
    assert (ben.group, ben.noun, ben.prompt, ben.references) == ("", "person", None, ())
    assert ben.identity == photos / "anna" / "1.jpg"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "who,reference\nanna,anna/1.jpg\n", "needs columns 'person'"),
        ("t.csv", "person,target\nanna,anna/1.jpg\n", "needs columns 'person'"),
        ("t.csv", "person,reference\nanna,\n", "needs a reference photo or an identity"),
        ("t.csv", "person,reference\nanna,gone.jpg\n", "do not exist: .*gone.jpg"),
        ("t.csv", "person,reference\nanna,anna/1.jpg\nanna,anna/2.JPG\n", "must be unique and valid"),
        ("t.csv", "person,reference\n../anna,anna/1.jpg\n", "must be unique and valid"),
        ("t.csv", "person,reference\n", "There are no people"),
        ("t.jsonl", '{"person": "anna", "reference": "anna/1.jpg"}\n{\n', "row 2"),
        ("t.jpg", "", "not a .csv or .jsonl table"),
    ],
)
def test_what_names_nobody_is_our_error(name, text, message, photos):
    (photos / name).write_text(text)
    with pytest.raises(EvaluationError, match=message):
        load_cases(photos / name)
    (photos / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"There is no photo in .*empty"):
        load_cases(photos)


def test_people_are_put_together_in_their_order() -> None:
    """Each is in one picture at most, with the photos of all; no picture is short of people."""
    single = [
        Case(name=name, references=(Path(name, "1.png"),), target=Path(name, "2.png"), noun=noun, group=group)
        for name, noun, group in zip("abcde", ("man", "woman") * 3, "xxyxy", strict=False)
    ]
    assert together(single, 1) == single
    for people in (2, 3, 4):
        groups = together(single, people)
        assert [member for group in groups for member in group.members] == single[: len(groups) * people]
        for group in groups:
            assert len(group.members) == len(group.references) == people
            assert group.photos == [Path(one.name, file) for one in group.members for file in ("1.png", "2.png")]
    first, second = together(single, 2)
    assert (first.name, first.noun, first.group) == ("a + b", "man and a woman", "x")
    assert second.group == ""
    for people in (0, 5):
        with pytest.raises(EvaluationError, match="1 to 4"):
            together(single, people)
    with pytest.raises(EvaluationError, match="requires at least 3 people"):
        together(single[:2], 3)
    with pytest.raises(EvaluationError, match=r"'a \+ b' already shows several people"):
        together([first, second], 2)
