"""Time and memory of what happens before a picture: python benchmarks/opening.py [--help]

Loading one file of IP-Adapter-FaceID-Portrait with random weights into a pipeline of real size, by diffusers and by
idgen; and enrolling a photo: opening the face networks, finding the face, and embedding it. Medians over rounds in
which all take turns; on a CPU of processor time.
"""

from __future__ import annotations

import inspect
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils.logging import set_verbosity_error
from networks import SD15, SDXL, faceid_weights, make_unet
from PIL import Image
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from skimage import data

from idgen.enrollment import enroll
from idgen.faces import FaceAnalyzer

SIZES = {"sd15": (StableDiffusionPipeline, SD15), "sdxl": (StableDiffusionXLPipeline, SDXL)}
FILE = "ip-adapter-faceid-portrait_{}.safetensors"


def seconds(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def medians(acts: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, float]:
    """Milliseconds of each act, which take turns; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for _ in range(rounds + 1):
        for name, act in acts.items():
            start = seconds(device)
            act()
            times[name].append(1000 * (seconds(device) - start))
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def load(model: str, rounds: int, device: torch.device) -> list[tuple[str, ...]]:
    """A row for each library."""
    kind, config = SIZES[model]
    unet = make_unet(config, device, torch.float16)
    parts: dict[str, Any] = {
        name: None for name, given in inspect.signature(kind).parameters.items() if given.default is given.empty
    }
    parts |= {"unet": unet, "scheduler": DDIMScheduler(steps_offset=1, clip_sample=False)}
    pipe: Any = kind(**parts, **({"requires_safety_checker": False} if model == "sd15" else {}))
    before = sum(weight.nbytes for weight in unet.parameters())
    added: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = FILE.format(model)
        weights = faceid_weights(unet)
        save_file({f"{part}.{name}": w for part in weights for name, w in weights[part].items()}, Path(folder, file))

        def diffusers() -> None:
            pipe.load_ip_adapter(folder, subfolder="", weight_name=file, image_encoder_folder=None)
            added["diffusers"] = sum(weight.nbytes for weight in unet.parameters()) - before
            pipe.unload_ip_adapter()

        def idgen() -> None:
            pipe.load_id_adapter(folder, weight_name=file, variant="faceid-portrait")
            added["idgen"] = sum(weight.nbytes for weight in pipe.id_adapters["default"].parameters())
            pipe.unload_id_adapter()

        found = medians({"diffusers": diffusers, "idgen": idgen}, rounds, device)
    return [
        (
            f"{model}, {name}",
            f"{found[name]:.0f}",
            f"{found[name] / found['diffusers']:.2f} ×",
            f"{added[name] / 2**20:.0f}",
        )
        for name in found
    ]


def enrol(spec: str, side: int, rounds: int) -> tuple[str, ...]:
    """Milliseconds of opening a face encoder and its detector, of the parts of enrolling a photo, and of the whole."""
    photo = np.asarray(Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC))
    analyzer = FaceAnalyzer.open(spec)
    (face,) = analyzer.analyze(photo)
    crop = analyzer.encoder.crop(photo, face.landmarks)[None]
    acts: dict[str, Callable[[], Any]] = {
        "open": lambda: FaceAnalyzer.open(spec).analyze(photo),
        "find": lambda: analyzer.detector.detect(photo),
        "embed": lambda: analyzer.encoder.embed(crop),
        "enrol": lambda: enroll(photo, analyzer),
    }
    found = medians(acts, rounds, torch.device("cpu"))
    found["open"] -= found["enrol"]  # some networks open at their first use
    return (spec.rpartition("/")[2], *(f"{each:.0f}" for each in found.values()))


def main(
    model: Literal["sd15", "sdxl", "both"] = "both",
    encoders: tuple[str, ...] = ("dlib-resnet-v1",),
    side: int = 512,
    rounds: int = 5,
) -> None:
    """Measure and print.

    Args:
        model: Size of the pipeline.
        encoders: Face encoders, as for `idgen prepare --encoder`.
        side: Width and height of the photo in pixels.
        rounds: Rounds after the one that warms up.
    """
    torch.set_num_threads(1)
    set_verbosity_error()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    console = Console(width=110)
    table = Table(
        "loading", "ms", "relative", "weights, MiB", title=f"IP-Adapter-FaceID-Portrait on {device}, float16"
    )
    for name in SIZES if model == "both" else [model]:
        for row in load(name, rounds, device):
            table.add_row(*row)
    console.print(table)
    table = Table(
        "encoder", "opening, ms", "finding", "embedding", "enrolling", title=f"a photo of {side} px, one core"
    )
    for spec in encoders:
        table.add_row(*enrol(spec, side, rounds))
    console.print(table)


if __name__ == "__main__":
    tyro.cli(main)
