"""`idgen generate --set`: a training set of people who do not exist, and the report on it.

Such sets train face recognisers without photos of anybody (IDiff-Face, arXiv 2308.04995; DomainMix).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.assign import AssignOptions
from ..data.bank import IdentityBank
from ..data.clustering import unit
from ..data.engines import Engine
from ..data.manifest import Manifest
from ..data.prepare import PrepareOptions, prepare
from ..errors import EvaluationError
from ..faces import EncoderStatistics, load_photo, spec_of
from ..files import write_bytes
from ..identity import Identity
from .cases import Case
from .drawer import FileOf, draw
from .drawing import Drawing, DrawingSettings
from .judges import Embeddings, Judges, RealFaces, encoder_roles, read_faces
from .launched import processes
from .measure import Shot, measure
from .opener import PipelineOpener
from .report import write_report
from .summary import Summary
from .synthesis import NEAR
from .variations import Variation, variations

PICTURES, TABLE, REPORT = "pictures", "pictures.jsonl", "report"


@dataclass(frozen=True, kw_only=True)
class SetPlan:
    """Contents of a synthetic set.

    Attributes:
        people: Name → the invented person.
        prompts: Name → the prompt of each picture.
        seed: Seed of the first picture; each picture has its own.
    """

    people: dict[str, Identity]
    prompts: dict[str, list[Variation]]
    seed: int

    @classmethod
    def of(
        cls, people: Sequence[Identity], pictures: int, seed: int = 0, knows: Callable[[str], bool] = lambda _: True
    ) -> SetPlan:
        """People with so many pictures each, whose prompts `variations` makes."""
        named = {f"person-{number:05d}": person for number, person in enumerate(people)}
        prompts = {name: variations(pictures, seed + number, knows) for number, name in enumerate(named)}
        return cls(people={name: replace(one, name=name) for name, one in named.items()}, prompts=prompts, seed=seed)

    @property
    def encoder(self) -> str:
        """Name of the face encoder of the people."""
        return next(iter(self.people.values())).encoder

    @property
    def drawings(self) -> list[Drawing]:
        """The pictures, person by person."""
        found = []
        for name, prompts in self.prompts.items():
            for number, prompt in enumerate(prompts):
                seed = self.seed + len(found)
                label = prompt.phrases.get("style", "")
                found.append(
                    Drawing(path=f"{name}/{number:03d}", person=name, prompt=prompt.text, label=label, seed=seed)
                )
        return found


def make_set(
    opener: PipelineOpener,
    settings: DrawingSettings,
    plan: SetPlan,
    output: Path,
    judges: Judges,
    *,
    file_of: FileOf,
    batch_size: int = 1,
    engine: Engine | None = None,
    real: str | None = None,
) -> Summary | None:
    """Draw a set, turn it into shards, and measure it. An interrupted run continues when it is started again.

    The processes of `accelerate launch` draw together; the main one does the rest.

    `output` gets the shards, `pictures/` with a folder for each person, the table `pictures.jsonl`, and `report/`.

    Args:
        opener: Opens the pipeline.
        settings: Settings of all pictures.
        plan: People and prompts.
        output: Folder of the set.
        judges: Measure the pictures; the encoder of the people is among them.
        file_of: See `draw`.
        batch_size: See `draw`; so is `engine`.
        real: Folder or URL of a prepared set of real people, with whom the report compares.

    Returns:
        The measurements; None in all but the main process.

    Raises:
        EvaluationError: The pictures cannot be written, or no person has two pictures with a face.
        DataError: The set of real people cannot be read.
    """
    folder = output / PICTURES
    for name, person in plan.people.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        person.save(folder / name / "identity.safetensors")
    people = {name: [person] for name, person in plan.people.items()}
    draw(opener, plan.drawings, people, settings, folder, file_of, batch_size, engine)
    if not processes().is_main_process:
        return None
    manifest = _make_shards(plan, output)
    cases, shots, without = _cases(plan, folder, judges)
    about: dict[str, str | float] = {
        "invented people": len(plan.people),
        "pictures": len(plan.drawings),
        "people without two pictures that show a face": without,
        "usable faces in the shards": manifest.counts["usable"],
    }
    if real is not None:
        about |= nearest_real(plan.people, real)
    measured = measure(shots, judges, cases)
    roles = encoder_roles(list(judges.encoders), plan.encoder, ())
    return write_report(output / REPORT, about, roles, measured, shots)


def nearest_real(people: dict[str, Identity], real: str) -> dict[str, str | float]:
    """Similarity of invented people to the real people of a prepared set, for the head of the report."""
    encoder = next(iter(people.values())).encoder
    centres = real_people(real, encoder)
    nearest = np.stack([person.embedding(normalised=True).numpy() @ centres.T for person in people.values()]).max(1)
    told: dict[str, str | float] = {
        "real people compared with": len(centres),
        f"similarity to the nearest real person by {encoder}": f"{nearest.mean():.3f} on average, {nearest.max():.3f} "
        "at most",
    }
    statistics = EncoderStatistics.find(encoder)
    if statistics is not None:
        told[f"one in {1 / NEAR:,.0f} pairs of strangers by {encoder} exceeds"] = round(statistics.threshold(NEAR), 3)
    return told


def real_people(shards: str, encoder: str) -> np.ndarray:
    """(people, dim), unit length: the mean direction of each person of the training split of a prepared set."""
    own = Manifest.open(shards).encoder
    return unit(IdentityBank(shards, encoder=None if encoder == own else encoder).centres)


def _make_shards(plan: SetPlan, output: Path) -> Manifest:
    """Shards of the pictures, beside their table."""
    write_bytes(output / TABLE, _table(plan).encode(), EvaluationError)
    return prepare(
        PrepareOptions(
            photos=str(output / TABLE),
            output=str(output),
            layout="jsonl",
            encoder=spec_of(plan.encoder),
            people=AssignOptions(shares={}),
        )
    )


def _table(plan: SetPlan) -> str:
    rows = [
        {
            "path": f"{PICTURES}/{drawing.path}.png",
            "person": drawing.person,
            "caption": drawing.prompt,
            "licence": "generated; the person does not exist",
        }
        for drawing in plan.drawings
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def _cases(plan: SetPlan, folder: Path, judges: Judges) -> tuple[RealFaces, list[Shot], int]:
    """Each person with the first picture that shows a face as reference, and the other pictures, also those that show
    none. The number of people who lack such pictures comes last."""
    real: RealFaces = {}
    shots: list[Shot] = []
    without = 0
    for name, prompts in plan.prompts.items():
        files = [folder / name / f"{number:03d}.png" for number in range(len(prompts))]
        number, faces = _first_with_face(files[:-1], judges)
        if faces is None:
            without += 1
            continue
        case = Case(name=name, references=(files[number],))
        real[name] = (faces, None)
        others = [i for i in range(len(files)) if i != number]
        shots += [
            Shot(case=case, file=files[i], prompt=prompts[i].text, groups=dict(prompts[i].phrases)) for i in others
        ]
    if not shots:
        raise EvaluationError("No invented person has two pictures that show a face.")
    return real, shots, without


def _first_with_face(files: Sequence[Path], judges: Judges) -> tuple[int, Embeddings | None]:
    """The number of the first picture in which a face is found, and its embeddings."""
    for number, file in enumerate(files):
        faces, crop = read_faces(load_photo(file), None, judges)
        if crop is not None:
            return number, faces
    return -1, None
