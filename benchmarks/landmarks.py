"""Fit the map from dlib's five points to the canonical five, and measure its error.

    python benchmarks/landmarks.py --photos FOLDER --yunet face_detection_yunet.onnx

YuNet's points are the ground truth. The map is fitted on half of the photos and measured on the other half. The last
table is `_FROM_NOSE` in `src/idgen/faces/detectors.py`.
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from idgen.faces import load_photo
from idgen.faces.detectors import DlibDetector, dlib_to_canonical
from idgen.faces.opencv import YuNetDetector

MIRROR = [1, 0, 2, 4, 3]


class DlibPoints(DlibDetector):
    """The default detector, reporting dlib's own points."""

    landmarks = staticmethod(lambda points: points)


def photos(folder: Path, every: int) -> Iterator[np.ndarray]:
    for path in sorted(folder.glob("**/*.tar")):
        with tarfile.open(path) as tar:
            for i, member in enumerate(m for m in tar if m.isfile()):
                if i % every == 0 and (data := tar.extractfile(member)):
                    yield load_photo(data.read())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with tar files of photos")
    parser.add_argument("--yunet", type=Path, required=True)
    parser.add_argument("--every", type=int, default=4, help="use every n-th photo")
    arguments = parser.parse_args()

    dlib_detector, yunet, pairs = DlibPoints(), YuNetDetector(arguments.yunet), []
    for image in photos(arguments.photos, arguments.every):
        ours, truth = dlib_detector.detect(image), yunet.detect(image)
        if len(ours) == len(truth) == 1:
            pairs.append((ours[0].landmarks, truth[0].landmarks))
    print(f"{len(pairs)} photos with one face by both detectors")

    source, target = to_local(np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs]))
    half = len(source) // 2
    table = fit(source[:half], target[:half])
    x = np.c_[source[half:], np.ones(len(source) - half)]
    left = np.einsum("kij,nj->nki", table, x)
    right = np.einsum("kij,nj->nki", table, x * [-1, 1, 1]) * [-1, 1]
    predicted = np.stack([left[:, 0], right[:, 0], left[:, 1], left[:, 2], right[:, 2]], 1)
    error = np.linalg.norm(predicted - target[half:], axis=-1)
    print("median error in distances between the eyes:", np.median(error, 0).round(3))
    installed = np.array([dlib_to_canonical(p[0]) for p in pairs[half:]])
    scale = [np.linalg.norm(p[1][1] - p[1][0]) for p in pairs[half:]]
    distance = np.linalg.norm(installed - np.array([p[1] for p in pairs[half:]]), axis=-1) / np.array(scale)[:, None]
    print("the same, of the table in use:             ", np.median(distance, 0).round(3))
    print(np.array2string(table.round(3), separator=", "))


def to_local(points: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 5, 2) of both kinds → nose (n, 2) and canonical points (n, 5, 2) in the frame of the eyes."""
    right, left = points[:, :2].mean(1), points[:, 2:4].mean(1)
    axis, origin = right - left, (right + left) / 2
    frame = np.stack([axis, np.stack([-axis[:, 1], axis[:, 0]], -1)], -1)
    inverse = np.linalg.inv(frame)
    return (
        np.einsum("nij,nj->ni", inverse, points[:, 4] - origin),
        np.einsum("nij,nkj->nki", inverse, target - origin[:, None]),
    )


def fit(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least squares over photos and their mirror images, twice: the second time without gross mismatches."""
    source = np.concatenate([source, source * [-1, 1]])
    target = np.concatenate([target, target[:, MIRROR] * [-1, 1]])[:, [0, 2, 3]]
    design, keep = np.c_[source, np.ones(len(source))], np.ones(len(source), bool)
    solution = np.empty(0)
    for _ in range(3):
        solution = np.linalg.lstsq(design[keep], target[keep].reshape(keep.sum(), -1), rcond=None)[0]
        residual = np.abs(design @ solution - target.reshape(len(target), -1)).max(1)
        keep = residual < 4 * np.median(residual)
    return solution.T.reshape(3, 2, 3)


if __name__ == "__main__":
    main()
