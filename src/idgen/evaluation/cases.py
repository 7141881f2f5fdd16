"""Whom to draw: people with a reference and a target photo, from folders, a table, or MultiID-Bench's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.facts import clean
from ..data.members import hidden, is_picture
from ..data.sources import find_sources
from ..data.storage import place
from ..data.tables import read_rows
from ..errors import EvaluationError
from ..files import read_json

MOST_PEOPLE = 4


@dataclass(frozen=True, kw_only=True)
class Case:
    """People who stand in one picture, and a real photo of what it shows.

    Attributes:
        name: Label, unique, a folder's name.
        references: A photo of each person, from which they are enrolled.
        target: Another real photo of the same people; Sim(GT) needs it.
        prompt: What the target shows, where the data says it.
        group: For results by group; empty if the data has none.
        noun: What prompts with `{}` call the person.
        identity: An enrolled identity's file, instead of enrolling the reference.
        output: A picture that somebody else drew of this case.
    """

    name: str
    references: tuple[Path, ...]
    target: Path | None = None
    prompt: str | None = None
    group: str = ""
    noun: str = "person"
    identity: Path | None = None
    output: Path | None = None


def load_cases(source: Path) -> list[Case]:
    """Read people. Folders and tables are read as `idgen prepare` reads them.

    Args:
        source: A table (.csv or .jsonl: `person`, `reference`, and if known `target`, `prompt`, `group`, `noun`,
            `identity`; paths are relative to it), a root in MultiID-Bench's layout (`ID/meta.json` beside `ref_1.jpg`
            … `ref_4.jpg`, `ori.jpg`, `out.jpg`), or a folder with one of photos for each person: the first is the
            reference, the second the target.

    Raises:
        EvaluationError: There is nobody, a name occurs twice, or a file is missing.
    """
    if source.is_file():
        cases = _read_table(source)
    elif source.is_dir():
        folders = sorted(folder for folder in source.iterdir() if folder.is_dir() and not hidden([folder.name]))
        benches = [folder for folder in folders if (folder / "meta.json").is_file()]
        cases = [_read_multiid(folder) for folder in benches]
        cases += _read_folders(source, {folder.name for folder in folders if folder not in benches})
    else:
        raise EvaluationError(f"There is no '{source}' to read people from.")
    if not cases:
        raise EvaluationError(f"'{source}' names nobody.")
    names = [case.name for case in cases]
    if len(set(names)) < len(names) or not all(name and Path(name).name == name for name in names):
        raise EvaluationError(f"Each person in '{source}' needs a name of their own that can be a folder's: {names}")
    files = [file for case in cases for file in (*case.references, case.target, case.identity) if file is not None]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise EvaluationError(f"'{source}' names files that are not there: {', '.join(missing[:5])}")
    return cases


def write_multiid(root: Path, case: Case, picture: Path, prompt: str) -> None:
    """Write a case in MultiID-Bench's layout (github.com/Doby-Xu/WithAnyone, `MultiID_Bench/readme.md`).

    Photos and picture are copied byte by byte under the names that its scripts look for, which read any format.
    """
    folder = root / case.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "out.jpg").write_bytes(picture.read_bytes())
    for i, reference in enumerate(case.references, 1):
        (folder / f"ref_{i}.jpg").write_bytes(reference.read_bytes())
    if case.target is not None:
        (folder / "ori.jpg").write_bytes(case.target.read_bytes())
    # Last: a folder without it is not read as a case.
    (folder / "meta.json").write_text(json.dumps({"prompt": prompt}, ensure_ascii=False), encoding="utf-8")


def _read_multiid(folder: Path) -> Case:
    references = tuple(p for i in range(1, MOST_PEOPLE + 1) if (p := folder / f"ref_{i}.jpg").is_file())
    target, output = folder / "ori.jpg", folder / "out.jpg"
    try:
        prompt = read_json(folder / "meta.json", EvaluationError)["prompt"]
    except (KeyError, TypeError) as error:
        raise EvaluationError(f"'{folder / 'meta.json'}' holds no prompt: {error!r}") from error
    if not references:
        raise EvaluationError(f"'{folder}' has no ref_1.jpg.")
    return Case(
        name=folder.name,
        references=references,
        target=target if target.is_file() else None,
        prompt=prompt,
        group=f"{len(references)} people" if len(references) > 1 else "1 person",
        output=output if output.is_file() else None,
    )


def _read_folders(root: Path, names: set[str]) -> list[Case]:
    photos: dict[str, list[Path]] = {name: [] for name in sorted(names)}
    for source in find_sources(str(root), "folders") if names else ():
        folder = source.name.split("/")[0]
        if source.photo and folder in names and is_picture(source.name):
            photos[folder].append(Path(source.photo.path))
    if empty := [str(root / folder) for folder, found in photos.items() if not found]:
        raise EvaluationError(f"No photo is in {', '.join(empty[:5])}.")
    return [
        Case(name=clean(folder) or "", references=(found[0],), target=found[1] if len(found) > 1 else None)
        for folder, found in photos.items()
    ]


def _read_table(table: Path) -> list[Case]:
    if table.suffix.lower() not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        raise EvaluationError(f"'{table}' is not a table in .csv or .jsonl.")
    cases = []
    for number, row in enumerate(read_rows(*place(str(table))), 1):
        if row is None or "person" not in row or not {"reference", "identity"} & set(row):
            told = None if row is None else [name for name in row if name]
            raise EvaluationError(
                f"'{table}' needs columns 'person' and 'reference' or 'identity'; its row {number} has {told}."
            )
        cases.append(_read_row(table.parent, row))
    return cases


def _read_row(folder: Path, row: Mapping[str, Any]) -> Case:
    told = {name: text for name, value in row.items() if name and (text := clean(value)) is not None}
    paths = {name: folder / str(row[name]) for name in ("reference", "target", "identity") if name in told}
    if not {"reference", "identity"} & set(paths):
        raise EvaluationError(f"'{told.get('person')}' has neither a reference photo nor an identity.")
    return Case(
        name=told.get("person", ""),
        references=(paths["reference"],) if "reference" in paths else (),
        target=paths.get("target"),
        identity=paths.get("identity"),
        prompt=told.get("prompt"),
        group=told.get("group", ""),
        noun=told.get("noun", "person"),
    )
