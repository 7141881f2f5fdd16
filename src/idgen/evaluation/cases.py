"""The people of an evaluation, with reference and target photos: from folders, a table, or MultiID-Bench's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.members import hidden, is_picture
from ..data.metadata import clean
from ..data.sources import find_sources
from ..data.storage import place
from ..data.tables import read_rows
from ..errors import EvaluationError
from ..files import read_json, write_folder

if TYPE_CHECKING:
    from ..adapter import IdentityAdapter
    from ..identity import Identity

MOST_PEOPLE = 4
OWN = "group"
"""Label in reports of the groups in a table's column `group`."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """The people of one picture, with real photos of them.

    Attributes:
        name: Unique label, also the name of a folder.
        references: One photo of each person, from which they are enrolled.
        target: Another real photo of the same people; Sim(GT) needs it.
        prompt: Prompt for the target, if the data has one.
        group: Group that results are reported for; empty if the data has none.
        noun: Replaces `{}` in prompts.
        identity: File of an enrolled identity, used instead of enrolling the reference.
        output: A picture of this case that was drawn elsewhere.
        groups: What groups are of → group: the group of the data, and those of `with_groups`.
        members: The cases of single people whom the picture shows together, if it was put together by `together`.
    """

    name: str
    references: tuple[Path, ...]
    target: Path | None = None
    prompt: str | None = None
    group: str = ""
    noun: str = "person"
    identity: Path | None = None
    output: Path | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    members: tuple[Case, ...] = ()

    def __post_init__(self) -> None:
        if self.group:
            object.__setattr__(self, "groups", {OWN: self.group, **self.groups})

    @property
    def photos(self) -> list[Path]:
        """All real photos."""
        if self.members:
            return [photo for member in self.members for photo in member.photos]
        return [*self.references, *([] if self.target is None else [self.target])]


def load_cases(source: Path) -> list[Case]:
    """Read people. Folders and tables follow the rules of `idgen prepare`.

    Args:
        source: One of
            a table (.csv or .jsonl) with columns `person` and `reference` or `identity`, and optionally `target`,
            `prompt`, `group`, `group_NAME` for further groups, and `noun`; paths are relative to it;
            a folder in MultiID-Bench's layout: `ID/meta.json` beside `ref_1.jpg` … `ref_4.jpg`, `ori.jpg`, `out.jpg`;
            a folder with one folder of photos per person: the first photo is the reference, the second the target.

    Raises:
        EvaluationError: There are no people, a name occurs twice, or a file is missing.
    """
    if source.is_file():
        cases = _read_table(source)
    elif source.is_dir():
        folders = sorted(folder for folder in source.iterdir() if folder.is_dir() and not hidden([folder.name]))
        benches = [folder for folder in folders if (folder / "meta.json").is_file()]
        cases = [_read_multiid(folder) for folder in benches]
        cases += _read_folders(source, {folder.name for folder in folders if folder not in benches})
    else:
        raise EvaluationError(f"'{source}' does not exist.")
    if not cases:
        raise EvaluationError(f"There are no people in '{source}'.")
    names = [case.name for case in cases]
    if len(set(names)) < len(names) or not all(name and Path(name).name == name for name in names):
        raise EvaluationError(f"The names in '{source}' must be unique and valid as folder names: {names}")
    files = [file for case in cases for file in (*case.references, case.target, case.identity) if file is not None]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise EvaluationError(f"Files named in '{source}' do not exist: {', '.join(missing[:5])}")
    return cases


def together(cases: Sequence[Case], people: int) -> list[Case]:
    """Cases of `people` people in one picture, each person in one of them: the first ones, then the next ones.

    People who are left over are in none.

    Raises:
        EvaluationError: There are too few people, or a case shows several already.
    """
    if not 1 <= people <= MOST_PEOPLE:
        raise EvaluationError(f"--people must be 1 to {MOST_PEOPLE}, got {people}.")
    if people == 1:
        return list(cases)
    if several := [case.name for case in cases if len(case.references) > 1]:
        raise EvaluationError(f"'{several[0]}' already shows several people. Do not pass --people.")
    if len(cases) < people:
        raise EvaluationError(
            f"--people {people} requires at least {people} people in --identities, which has {len(cases)}."
        )
    groups = [tuple(cases[i : i + people]) for i in range(0, len(cases) - people + 1, people)]
    return [
        Case(
            name=" + ".join(case.name for case in group),
            references=tuple(photo for case in group for photo in case.references),
            group=group[0].group if len({case.group for case in group}) == 1 else "",
            noun=" and a ".join(case.noun for case in group),
            members=group,
        )
        for group in groups
    ]


def write_multiid(root: Path, case: Case, picture: Path, prompt: str) -> None:
    """Write a case in MultiID-Bench's layout (github.com/Doby-Xu/WithAnyone, `MultiID_Bench/readme.md`).

    Photos and picture are copied byte by byte: the benchmark's scripts open any format under these names.
    """
    files = {"out.jpg": picture, **{f"ref_{i}.jpg": photo for i, photo in enumerate(case.references, 1)}}
    if case.target is not None:
        files["ori.jpg"] = case.target
    with write_folder(root / case.name, last="meta.json", error=EvaluationError) as folder:
        for name, file in files.items():
            (folder / name).write_bytes(file.read_bytes())
        (folder / "meta.json").write_text(json.dumps({"prompt": prompt}, ensure_ascii=False), encoding="utf-8")


def enroll_cases(pipeline: Any, cases: Sequence[Case]) -> dict[str, list[Identity]]:
    """Name → identities, loaded or enrolled from the largest face of each reference photo."""
    from ..identity import Identity

    def enroll(case: Case) -> list[Identity]:
        if case.members:
            return [identity for member in case.members for identity in enroll(member)]
        if case.identity is not None:
            return [Identity.load(case.identity)]
        return [pipeline.encode_identity(str(photo), face="largest") for photo in case.references]

    return {case.name: enroll(case) for case in cases}


def adapter_of(pipeline: Any) -> IdentityAdapter:
    """The first adapter of a pipeline."""
    return next(iter(pipeline.id_adapters.values()))


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
        raise EvaluationError(f"There is no photo in {', '.join(empty[:5])}.")
    return [
        Case(name=clean(folder) or "", references=(found[0],), target=found[1] if len(found) > 1 else None)
        for folder, found in photos.items()
    ]


def _read_table(table: Path) -> list[Case]:
    if table.suffix.lower() not in (".csv", ".tsv", ".jsonl", ".ndjson"):
        raise EvaluationError(f"'{table}' is not a .csv or .jsonl table.")
    cases = []
    for number, row in enumerate(read_rows(*place(str(table))), 1):
        if row is None or "person" not in row or not {"reference", "identity"} & set(row):
            told = None if row is None else [name for name in row if name]
            raise EvaluationError(
                f"'{table}' needs columns 'person' and 'reference' or 'identity'; row {number} has {told}."
            )
        cases.append(_read_row(table.parent, row))
    return cases


def _read_row(folder: Path, row: Mapping[str, Any]) -> Case:
    told = {name: text for name, value in row.items() if name and (text := clean(value)) is not None}
    paths = {name: folder / str(row[name]) for name in ("reference", "target", "identity") if name in told}
    if not {"reference", "identity"} & set(paths):
        raise EvaluationError(f"'{told.get('person')}' needs a reference photo or an identity.")
    return Case(
        name=told.get("person", ""),
        references=(paths["reference"],) if "reference" in paths else (),
        target=paths.get("target"),
        identity=paths.get("identity"),
        prompt=told.get("prompt"),
        group=told.get("group", ""),
        noun=told.get("noun", "person"),
        groups={name.removeprefix(f"{OWN}_"): text for name, text in told.items() if name.startswith(f"{OWN}_")},
    )
