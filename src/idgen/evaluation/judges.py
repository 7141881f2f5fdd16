"""The networks that pictures are measured with, and the faces that they find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypeAlias, TypedDict

import numpy as np

from ..errors import CheckpointError, EvaluationError, MissingDependencyError, NoFaceError
from ..faces import (
    DlibEncoder,
    EncoderStatistics,
    FaceDetector,
    FaceEncoder,
    align_face,
    load_photo,
    open_encoder,
    spec_of,
)
from ..faces.assignment import assign_faces
from ..faces.registry import default_detector
from ..terminal import warn
from .cases import Case
from .similarity import found

BATCH = 16
"""Pictures that are in memory, and go through a network, at once."""

PromptScore: TypeAlias = Callable[[Sequence[np.ndarray], Sequence[str], Sequence[str]], np.ndarray]
"""Pictures, their prompts and the prompts' labels → (n,), higher is better."""

NetworkFeatures: TypeAlias = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Pictures → (n, dim)."""

Embeddings: TypeAlias = dict[str, np.ndarray]
"""Encoder → (people, dim), unit length; NaN rows where no face was found."""

RealFaces: TypeAlias = dict[str, tuple[Embeddings, Embeddings | None]]
"""Case → embeddings of its references, and of its target."""

UNSEEN = "sface"
"""Encoder that measures adapters of the default encoder."""


@dataclass(frozen=True, kw_only=True)
class Judges:
    """The networks that pictures are measured with.

    Attributes:
        detector: Face detector, the same for all encoders.
        encoders: Face encoders by name. The first one assigns the faces in a picture of several people.
        prompt_score: Scores prompt fidelity.
        features: Features of whole pictures, for CLIP-I to the picture without identity and for Fréchet distance.
    """

    detector: FaceDetector
    encoders: Mapping[str, FaceEncoder]
    prompt_score: PromptScore | None = None
    features: NetworkFeatures | None = None


def read_real(cases: Sequence[Case], judges: Judges) -> RealFaces:
    """Find and embed the faces in all real photos.

    Raises:
        NoFaceError: A photo shows fewer faces than people.
        EvaluationError: A case has no reference photo to compare with.
    """
    real: RealFaces = {}
    missing = []
    for case in cases:
        reference, target = _read_photos(case, judges)
        first = next(iter(judges.encoders))
        if not (found(reference[first]).all() and (target is None or found(target[first]).all())):
            missing.append(case.name)
        real[case.name] = (reference, target)
    if missing:
        raise NoFaceError(f"No face in a real photo of {', '.join(missing)}; choose other photos, or leave them out.")
    return real


def _read_photos(case: Case, judges: Judges) -> tuple[Embeddings, Embeddings | None]:
    """Embeddings of a case's references, and of its target."""
    if case.members:
        references, targets = zip(*(_read_photos(member, judges) for member in case.members), strict=True)
        return _concatenated(references), None if None in targets else _concatenated(targets)
    if not case.references:
        raise EvaluationError(f"'{case.name}' has no reference photo to compare with.")
    reference = _concatenated([read_faces(load_photo(photo), None, judges)[0] for photo in case.references])
    return reference, read_faces(load_photo(case.target), reference, judges)[0] if case.target else None


def _concatenated(parts: Sequence[Embeddings]) -> Embeddings:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def read_faces(image: np.ndarray, people: Embeddings | None, judges: Judges) -> tuple[Embeddings, np.ndarray | None]:
    """Embeddings of the largest faces, each assigned to the person it resembles, and the crop of the largest face.

    Args:
        image: (height, width, 3) RGB.
        people: Embeddings of the expected people by all of the judges' encoders; one unknown person, if None.
        judges: Detector and encoders.

    Returns:
        The embeddings in the order of `people`, and a (112, 112, 3) uint8 crop, None where no face was found.
    """
    count = 1 if people is None else len(next(iter(people.values())))
    faces = sorted(judges.detector.detect(image), key=lambda face: face.area, reverse=True)[:count]
    if not faces:
        return {name: np.full((count, encoder.dim), np.nan) for name, encoder in judges.encoders.items()}, None
    embeddings = {}
    for name, encoder in judges.encoders.items():
        raw = encoder.embed(np.stack([encoder.crop(image, face.landmarks) for face in faces])).astype(np.float64)
        embeddings[name] = raw / np.linalg.norm(raw, axis=-1, keepdims=True)
    first = next(iter(embeddings))
    rows, columns = np.arange(1), np.arange(1)
    if people is not None and count > 1:  # the best assignment of all faces together (Hungarian matching)
        rows, columns = assign_faces(embeddings[first], people[first])
    ordered = {name: np.full((count, values.shape[1]), np.nan) for name, values in embeddings.items()}
    for name, values in embeddings.items():
        ordered[name][columns] = values[rows]
    return ordered, align_face(image, faces[0].landmarks)


def features_of(photos: Sequence[Path], features: NetworkFeatures) -> np.ndarray:
    """Features of photos, (n, dim), a few at a time."""
    starts = range(0, len(photos), BATCH)
    return np.concatenate([features([load_photo(photo) for photo in photos[i : i + BATCH]]) for i in starts])


def open_judges(
    conditioning: str | None,
    *,
    eval_encoder: Sequence[str] = (),
    detector: Path | None = None,
    clip: str | None = None,
    classifier: Path | None = None,
    features: Path | None = None,
) -> Judges:
    """Open the networks of `idgen evaluate`.

    Args:
        conditioning: Name of the encoder that the adapter reads, if it is known; it is added to the others.
        eval_encoder: Face encoders as `open_encoder` opens them; without any, one that the adapter does not read. If
            that one is not at hand, a warning says so, and the adapter's own measures alone.
        detector: YuNet file; without it the detector of the adapter's encoder if it brings one, else dlib's.
        clip: CLIP model, folder or hub id.
        classifier: ONNX classifier of prompts' labels; scores prompt fidelity instead of CLIP.
        features: ONNX feature network; replaces CLIP's features.
    """
    from ..faces.onnx_encoder import IMAGENET, OnnxNetwork
    from .prompt_fidelity import Clip, PromptClassifier

    encoders = [open_encoder(name) for name in eval_encoder] or _open_unseen(conditioning)
    encoders += [open_encoder(spec_of(conditioning))] if conditioning else []
    faces = default_detector(encoders[-1])
    if detector is not None:
        from ..faces.opencv import YuNetDetector

        faces = YuNetDetector(detector)
    clip_model = Clip(clip) if clip else None
    return Judges(
        detector=faces,
        encoders={encoder.name: encoder for encoder in encoders},
        prompt_score=PromptClassifier(classifier) if classifier else clip_model,
        features=OnnxNetwork(features, IMAGENET) if features else clip_model.features if clip_model else None,
    )


def _open_unseen(conditioning: str | None) -> list[FaceEncoder]:
    """A face encoder that the adapter does not read; none, with a warning, if it cannot be opened here."""
    if conditioning not in (None, DlibEncoder.name):
        return [open_encoder(DlibEncoder.name)]
    try:
        return [open_encoder(UNSEEN)]
    except (CheckpointError, MissingDependencyError) as error:
        warn(
            f"Only {DlibEncoder.name} measures the pictures. The adapter was trained with this encoder, which makes "
            f"its scores too high: pass another encoder with --eval-encoder. ({UNSEEN} would be the default: {error})"
        )
        return [] if conditioning else [open_encoder(DlibEncoder.name)]


class EncoderRole(TypedDict):
    """An encoder in `report.json`; `headline` marks the one whose figures are quoted.

    `match` is the similarity that one in 1,000 pairs of different people exceeds, None for an encoder without
    statistics (see `idgen calibrate`).
    """

    name: str
    role: str
    headline: bool
    match: NotRequired[float | None]


def encoder_roles(names: Sequence[str], conditioning: str | None, trained_with: Sequence[str]) -> list[EncoderRole]:
    """The role of each encoder. The headline is the first one that training did not use."""
    known = dict.fromkeys(trained_with, "used by a loss or reward: a high value can be reward hacking")
    if conditioning is not None:
        known[conditioning] = "the adapter's own: pictures are conditioned on its embeddings"
    unseen = [name for name in names if name not in known]
    return [
        EncoderRole(
            name=name,
            role=known.get(name, "evaluation only"),
            headline=name in unseen[:1],
            match=None if (found := EncoderStatistics.find(name)) is None else round(found.threshold(1e-3), 3),
        )
        for name in names
    ]
