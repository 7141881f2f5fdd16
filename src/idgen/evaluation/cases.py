"""Whom to draw: people with a reference and a target photo, from folders, a table, or MultiID-Bench's layout."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from ..errors import EvaluationError
from ..files import read_json

PHOTOS = {".jpg", ".jpeg", ".png", ".webp"}
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
    """Read people.

    Args:
        source: A table (.csv: `person`, `reference`, and if known `target`, `prompt`, `group`, `noun`, `identity`;
            paths are relative to it), a root in MultiID-Bench's layout (`ID/meta.json` beside `ref_1.jpg` …
            `ref_4.jpg`, `ori.jpg`, `out.jpg`), or a folder with one of photos for each person: the first is the
            reference, the second the target.

    Raises:
        EvaluationError: There is nobody, a name occurs twice, or a file is missing.
    """
    if source.is_file():
        cases = _read_table(source)
    elif source.is_dir():
        folders = sorted(folder for folder in source.iterdir() if folder.is_dir())
        cases = [_read_multiid(f) if (f / "meta.json").is_file() else _read_folder(f) for f in folders]
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


def _read_folder(folder: Path) -> Case:
    photos = sorted(p for p in folder.iterdir() if p.suffix.lower() in PHOTOS)
    if not photos:
        raise EvaluationError(f"'{folder}' holds no photo.")
    return Case(name=folder.name, references=(photos[0],), target=photos[1] if len(photos) > 1 else None)


def _read_table(table: Path) -> list[Case]:
    with table.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not {"reference", "identity"} & set(rows.fieldnames or ()) or "person" not in (rows.fieldnames or ()):
            raise EvaluationError(f"'{table}' needs columns 'person' and 'reference' or 'identity': {rows.fieldnames}")
        return [_read_row(table.parent, row) for row in rows]


def _read_row(folder: Path, row: dict[str, str]) -> Case:
    paths = {key: folder / row[key] for key in ("reference", "target", "identity") if row.get(key)}
    if not {"reference", "identity"} & set(paths):
        raise EvaluationError(f"'{row['person']}' has neither a reference photo nor an identity.")
    return Case(
        name=row["person"],
        references=(paths["reference"],) if "reference" in paths else (),
        target=paths.get("target"),
        identity=paths.get("identity"),
        prompt=row.get("prompt") or None,
        group=row.get("group") or "",
        noun=row.get("noun") or "person",
    )
