"""Assignment of the faces in a picture to the people whom it should show."""

from __future__ import annotations

import numpy as np


def assign_faces(faces: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best assignment of all faces together (Hungarian matching) by the cosines of their embeddings.

    Args:
        faces: (n, dim), embeddings of the faces.
        people: (m, dim), embeddings of the people.

    Returns:
        Numbers of faces and numbers of people, (min(n, m),) each, in pairs.
    """
    from scipy.optimize import linear_sum_assignment  # of the extras that have several people in a picture

    faces, people = (x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12) for x in (faces, people))
    return linear_sum_assignment(-faces @ people.T)
