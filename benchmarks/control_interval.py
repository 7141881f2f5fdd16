"""Measure the time saved by computing an IdentityNet only every k-th step, and what that changes in the picture.

    python benchmarks/control_interval.py
    python benchmarks/control_interval.py --people people/ --judge imagenet:mobilefacenet.onnx

The base, the adapter and the IdentityNet are those of the built-in model; everybody is drawn in one pose. With
people, Sim(GT) is the cosine to another photo by an encoder that no training has seen, with a 95 % interval over
people; a missed face counts as 0. Differences are paired: the same people and noise. Times are processor time, the
medians over interleaved rounds.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from diffusers import StableDiffusionControlNetPipeline
from rich.console import Console
from rich.table import Table

from idgen import Identity, IdentityNet
from idgen.evaluation.cases import enroll_cases, load_cases
from idgen.evaluation.intervals import Interval, mean_interval
from idgen.evaluation.judges import Judges, RealFaces, open_judges, read_faces, read_real
from idgen.faces import DlibEncoder
from idgen.tiny import TINY_IDENTITY_NET_PATH, load_tiny_base

WITHOUT = "without the net"
POINTS = np.array([[40.0, 52], [86, 52], [64, 72], [46, 94], [82, 94]])


def make_pipeline() -> Any:
    """The built-in model with its adapter and its IdentityNet."""
    net = IdentityNet.from_pretrained(TINY_IDENTITY_NET_PATH)
    pipe: Any = StableDiffusionControlNetPipeline(**load_tiny_base().components, controlnet=net)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_id_adapter("tiny")
    return pipe


@dataclass(frozen=True)
class Photos:
    """Real photos of the people who are drawn, and the encoder that compares with them."""

    judges: Judges
    real: RealFaces

    def similarities(self, images: np.ndarray) -> np.ndarray:
        """(people,) cosines of pictures, (people, height, width, 3) in [0, 1], to the people's targets."""
        (name,) = self.judges.encoders
        found = [read_faces((255 * image).round().astype(np.uint8), None, self.judges)[0][name][0] for image in images]
        targets = [(target or reference)[name][0] for reference, target in self.real.values()]
        return np.nan_to_num(np.einsum("pd,pd->p", np.stack(found), np.stack(targets)))


def main(
    steps: int = 25,
    pictures: int = 8,
    rounds: int = 3,
    intervals: tuple[int, ...] = (1, 2, 3),
    people: Path | None = None,
    judge: str = "sface",
) -> None:
    """Draw the same pictures at every interval.

    Args:
        steps: Denoising steps.
        pictures: How many people, drawn at once.
        rounds: Times each interval is measured.
        intervals: The values of control_interval; changes are against the first.
        people: Folder with a folder of two photos for each person; random people if not given.
        judge: Face encoder that measures real people.
    """
    pipe = make_pipeline()
    drawn_people = [Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=i) for i in range(pictures)]
    pose = pipe.prepare_landmarks(POINTS, (128, 128))
    photos = None
    if people is not None:
        cases = load_cases(people)[:pictures]
        drawn_people = [shown[0] for shown in enroll_cases(pipe, cases).values()]
        judges = open_judges(None, eval_encoder=(judge,))
        photos = Photos(judges, read_real(cases, judges))

    def draw(interval: int, scale: float = 1.0) -> tuple[float, np.ndarray]:
        start = time.process_time()
        images = pipe(
            ["a photo of a face"] * len(drawn_people),
            image=[pose] * len(drawn_people),
            id_embeds=drawn_people,
            control_interval=interval,
            controlnet_conditioning_scale=scale,
            num_inference_steps=steps,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(i) for i in range(len(drawn_people))],
            output_type="np",
        ).images
        return time.process_time() - start, images

    times: dict[int, list[float]] = {interval: [] for interval in intervals}
    drawn: dict[str, np.ndarray] = {}
    for _ in range(rounds):
        for interval in intervals:
            seconds, drawn[str(interval)] = draw(interval)
            times[interval].append(seconds)
    drawn[WITHOUT] = draw(intervals[0], scale=0.0)[1]
    found = {} if photos is None else {name: photos.similarities(images) for name, images in drawn.items()}
    show(times, drawn, found)


def show(times: dict[int, list[float]], drawn: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    """Print a row for each interval, compared with the first, and one without the net.

    Args:
        times: Interval → seconds of each round.
        drawn: Name of the row → pictures, (people, height, width, 3) in [0, 1].
        found: Name of the row → similarities, (people,); empty for random people.
    """
    first, *_ = times
    ratios = {str(i): f"{statistics.median(times[i]) / statistics.median(times[first]):.2f} ×" for i in times}
    table = Table("control_interval", "time", "mean change of a pixel (of 255)", "largest", "Sim(GT)", "difference")
    for name, images in drawn.items():
        change = 255 * abs(images - drawn[str(first)])
        cells = (name, ratios.get(name, ""), f"{change.mean():.2f}", f"{change.max():.0f}")
        cosines = found.get(name)
        likeness = () if cosines is None else (_shown(_over(cosines)), _shown(_over(cosines - found[str(first)])))
        table.add_row(*cells, *likeness)
    Console(width=119).print(table)


def _over(values: np.ndarray) -> Interval:
    return mean_interval(values, np.arange(len(values)))


def _shown(figure: Interval) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f} … {figure.high:.3f})"


if __name__ == "__main__":
    tyro.cli(main)
