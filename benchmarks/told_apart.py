"""How well invented people can be told apart by their pictures.

    idgen generate "a photo of a face" --random 200 --count 3 --steps 20 --false-match-rate 0.001 --output crowd/
    python benchmarks/told_apart.py crowd/ --yunet yunet.onnx --encoders imagenet:mobilefacenet.onnx dlib-resnet-v1

All further pictures of each person are compared with the first one of everybody. Intervals are bootstrapped over
people.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from idgen.evaluation.intervals import interval_of, resamples
from idgen.evaluation.scores import MISSED, Scores
from idgen.faces import FaceAnalyzer, open_encoder
from idgen.faces.opencv import YuNetDetector


def main(people: tyro.conf.Positional[Path], /, yunet: Path, encoders: tuple[str, ...]) -> None:
    """Print the equal error rate and the mean similarities by each encoder.

    Args:
        people: Folder with a folder of as many pictures for each person.
        yunet: YuNet, which finds the faces.
        encoders: Face encoders, as `open_encoder` opens them.
    """
    folders = [folder for folder in sorted(people.iterdir()) if folder.is_dir()]
    pictures = [[np.asarray(Image.open(file).convert("RGB")) for file in sorted(f.glob("*.png"))] for f in folders]
    for name in encoders:
        analyzer = FaceAnalyzer(YuNetDetector(yunet), open_encoder(name))
        embeds = np.stack([[embedding(analyzer, picture) for picture in each] for each in pictures])
        probes, gallery = embeds[:, 1:].reshape(-1, embeds.shape[-1]), embeds[:, 0]
        numbers = np.arange(len(folders))
        person = np.repeat(numbers, embeds.shape[1] - 1)
        cosines, same = np.nan_to_num(probes @ gallery.T, nan=MISSED), person[:, None] == numbers
        scores = Scores(cosines, same, person, numbers)
        eer = interval_of([scores.rates(weights).eer for weights in resamples(len(folders))])
        found = np.isfinite(embeds[..., 0]).mean()
        print(f"{name}: {found:.1%} of faces found, EER {eer.value:.2%} ({eer.low:.2%} … {eer.high:.2%})")
        print(f"  similarity of one person {cosines[same].mean():.3f}, of two {cosines[~same].mean():.3f}", flush=True)


def embedding(analyzer: FaceAnalyzer, picture: np.ndarray) -> np.ndarray:
    """The embedding of the largest face, of unit length; NaN if no face is found."""
    faces = analyzer.analyze(picture)
    if not faces:
        return np.full(analyzer.encoder.dim, np.nan)
    return faces[0].embedding / np.linalg.norm(faces[0].embedding)


if __name__ == "__main__":
    tyro.cli(main)
