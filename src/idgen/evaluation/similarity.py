"""The functions behind the metrics, in plain numpy.

A face that was not found is a row of NaN in the embeddings. It counts as similarity 0 and is never left out: an
average over the faces that were found rewards pictures without one.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from ..errors import EvaluationError

EPSILON = 1e-6


def found(embeddings: np.ndarray) -> np.ndarray:
    """(..., dim) → (...) whether there is a face."""
    return np.asarray(~np.isnan(embeddings).any(-1))


def detection_rate(embeddings: np.ndarray) -> float:
    """Share of pictures, (n, dim), in which the face was found."""
    return float(found(embeddings).mean())


def cosine_similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of embeddings row by row, (..., dim) → (...); 0 where either face was not found.

    Against the reference photo this is Sim(Ref) (the FaceSim of PuLID and ConsistentID), against another real photo of
    the person it is Sim(GT), the primary metric of MultiID-Bench (WithAnyone, arXiv 2510.14975).
    """
    product = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), EPSILON**2)
    return np.nan_to_num(product, nan=0.0)


def copy_paste(similarity_target: np.ndarray, similarity_reference: np.ndarray, real: np.ndarray) -> np.ndarray:
    """How much nearer a picture is to the reference than to the target: `(θ_gt - θ_gr) / max(θ_tr, ε)`, ε = 1e-6.

    θ_ab = arccos(cos(a, b)); g is the picture, t the target photo, r the reference. 1 is a copy of the reference,
    -1 a copy of the target; 0 where target and reference are the same (WithAnyone, arXiv 2510.14975, eq. 2).

    Args:
        similarity_target: (n,), cos(g, t).
        similarity_reference: (n,), cos(g, r).
        real: (n,), cos(t, r).
    """
    gt, gr, tr = (np.arccos(np.clip(c, -1, 1)) for c in (similarity_target, similarity_reference, real))
    return np.where(tr < EPSILON, 0.0, (gt - gr) / np.maximum(tr, EPSILON))


def identity_blending(similarity: np.ndarray) -> float:
    """Mean of cos(g_i, t_j) over i ≠ j: how much the people in a picture look like each other's photos.

    WithAnyone (arXiv 2510.14975), eq. 10.

    Args:
        similarity: (people, people), the face drawn for i against the photo of j. One person alone gives NaN.
    """
    people = len(similarity)
    return float(similarity[~np.eye(people, dtype=bool)].mean()) if people > 1 else float("nan")


def assignment_accuracy(similarity: np.ndarray) -> float:
    """Share of the people whose face looks more like them than like anybody else in the picture.

    Args:
        similarity: (people, people), the face drawn for i against the photo of j; a row of equal numbers, such as 0
            for a face that was not found, is wrong. One person alone gives NaN.
    """
    people = len(similarity)
    if people < 2:
        return float("nan")
    others = np.where(np.eye(people, dtype=bool), -np.inf, similarity)
    return float((np.diagonal(similarity) > others.max(1)).mean())


def pairwise_difference(images: np.ndarray) -> np.ndarray:
    """Root mean square difference of each pair of pictures, (n, ...) uint8 → (n, n) in [0, 1].

    No network is needed for it. For FaceDiv as StableIdentity prints it, give `diversity` LPIPS distances instead.
    """
    flat = images.reshape(len(images), -1)
    products = np.zeros((len(flat), len(flat)))
    for start in range(0, flat.shape[1], 4096):  # in float64 all of them take much memory
        part = flat[:, start : start + 4096].astype(np.float64)
        products += part @ part.T
    squares = np.diagonal(products)
    return np.sqrt((squares[:, None] + squares - 2 * products) / flat.shape[1]) / 255  # whole numbers: never below 0


def diversity(distance: np.ndarray, similarity: np.ndarray | None = None) -> np.ndarray:
    """Mean distance of each picture of a person to the person's others: FaceDiv (StableIdentity, arXiv 2401.15975).

    The mean over pictures is the mean over pairs.

    Args:
        distance: (n, n), between face crops; 0 to one whose face was not found.
        similarity: (n, n), cosines between the same faces. Given, each pair is multiplied by it, which is TrustedDiv:
            faces that differ because they show others do not count.

    Returns:
        (n,); NaN for a single picture.
    """
    if len(distance) < 2:
        return np.full(len(distance), np.nan)
    pairs = distance if similarity is None else distance * similarity
    return (pairs.sum(1) - np.diagonal(pairs)) / (len(pairs) - 1)


def disruption(picture: np.ndarray, without: np.ndarray) -> float:
    """Root mean square difference, in [0, 1], to the picture of the same prompt and seed without an identity.

    What PuLID (arXiv 2404.16022) measures by CLIP-I: an adapter shall change the face and leave the rest.

    Args:
        picture: (height, width, 3), uint8.
        without: Of the same shape.
    """
    return float(np.sqrt(np.square(picture.astype(np.float64) / 255 - without.astype(np.float64) / 255).mean()))


def sharpness(picture: np.ndarray) -> float:
    """Fine detail: what a Gaussian blur of σ = width / 128 removes, `std(x − blur(x)) / std(x)` of the grey picture.

    Args:
        picture: (height, width, 3), uint8.

    Returns:
        0 for a picture of one colour or without detail. Compare pictures of the same kind only.
    """
    grey = Image.fromarray(picture).convert("L")
    blurred = grey.filter(ImageFilter.GaussianBlur(grey.width / 128))
    x, smooth = (np.asarray(image, np.float64) for image in (grey, blurred))
    return float((x - smooth).std() / max(1.0, x.std()))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """FID, `|μ_a - μ_b|² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)`, of features (n, d) and (m, d) (Heusel et al. 2017).

    It depends on the network and, for few pictures, on their number: compare only within one report.

    Raises:
        EvaluationError: A set has fewer than two pictures, or the features differ in width.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
        raise EvaluationError(
            f"Fréchet distance needs two sets of at least two features, not {a.shape} and {b.shape}."
        )
    a, b = a.astype(np.float64), b.astype(np.float64)
    centred_a, centred_b = ((x - x.mean(0)) / np.sqrt(len(x) - 1) for x in (a, b))
    # tr (Σ_a Σ_b)^½ is the sum of the singular values of A Bᵀ, where Σ = XᵀX: exact and real also when there are
    # fewer pictures than features, where the root of the singular product is not.
    shared = np.linalg.svd(centred_a @ centred_b.T, compute_uv=False).sum()
    spread = np.square(centred_a).sum() + np.square(centred_b).sum() - 2 * shared
    return float(np.square(a.mean(0) - b.mean(0)).sum() + spread)
