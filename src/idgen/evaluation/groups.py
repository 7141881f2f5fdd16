"""The groups that results are reported for: of a table or a classifier, and by pose and size of the face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.quality import pose, pose_group, size_group
from ..errors import NoFaceError
from ..faces import Detection, FaceDetector, align_face, load_photo
from ..terminal import warn
from .cases import Case

ESTIMATED = "estimated group"
"""Label in reports of groups that a classifier estimates."""


def with_groups(cases: Sequence[Case], detector: FaceDetector, classifier: Path | None = None) -> list[Case]:
    """Cases with the groups that their reference photos belong to, by pose and size of the face.

    Cases of several people have no pose and no size.

    Args:
        cases: With reference photos that show a face.
        detector: Finds the faces.
        classifier: ONNX classifier of aligned faces, in the form of `PromptClassifier`. The label of a person without
            a group in the data becomes their `ESTIMATED` group, with a warning.
    """
    found = [_with_photo_groups(case, detector) for case in cases]
    if classifier is None:
        return found
    from .prompt_fidelity import PromptClassifier

    judge = PromptClassifier(classifier)
    unknown = [case for case in found if not case.group and len(case.references) == 1]
    if not unknown:
        return found
    warn(
        f"The groups of {len(unknown)} people are estimates by '{classifier.name}'. The error rate of estimates "
        "differs between groups, so a difference in the results can be caused by the classifier. Provide the "
        "groups that people report themselves in the column 'group'."
    )
    labels = judge.labels_of([_crop(case, detector) for case in unknown])
    estimated = {case.name: label for case, label in zip(unknown, labels, strict=True)}
    return [
        replace(case, groups={**case.groups, ESTIMATED: estimated[case.name]}) if case.name in estimated else case
        for case in found
    ]


def _with_photo_groups(case: Case, detector: FaceDetector) -> Case:
    if len(case.references) != 1:
        return case
    face = _largest(case, detector)
    yaw, _ = pose(face.landmarks)
    found = {"pose of the reference": pose_group(yaw), "face size of the reference": size_group(face.size)}
    return replace(case, groups={**case.groups, **found})


def _crop(case: Case, detector: FaceDetector) -> np.ndarray:
    return align_face(load_photo(case.references[0]), _largest(case, detector).landmarks)


def _largest(case: Case, detector: FaceDetector) -> Detection:
    faces = detector.detect(load_photo(case.references[0]))
    if not faces:
        raise NoFaceError(f"No face in '{case.references[0]}'; choose another photo, or leave the person out.")
    return max(faces, key=lambda face: face.area)
