"""People, prompts and judges of the small adapter's table, for `idgen.evaluation`."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import helper
from PIL import Image

from idgen.faces import DlibDetector, FaceDetector, load_photo
from idgen.faces.opencv import YuNetDetector

from . import config
from .captions import PHRASES, PROMPTS
from .held_out import test_people
from .judge import train_judge
from .photos import read_set

STYLES = ("photo", "pencil sketch", "sepia", "cartoon")
"""What everybody is drawn as."""


def write_people(settings: config.Config, london: Path, folder: Path, each: int) -> Path:
    """A table of people whom no training has seen, with two photos each: of LFW's test split, and of London.

    The first in the order of their names in whose photos two detectors find one face; who is left out is printed.

    Args:
        settings: Of the recipe.
        london: Folder with one of `neutral.jpg` and `smiling.jpg` for each person.
        folder: Gets `people.csv` and LFW's photos.
        each: People of either set.
    """
    pairs = {"LFW": _lfw(settings, folder / "photos"), "London": _london(london)}
    detectors = DlibDetector(), YuNetDetector(settings.paths.yunet)
    with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["person", "reference", "target", "group"])
        for group, people in pairs.items():
            kept = 0
            for name, photos in people.items():
                if kept < each and _usable(name, photos, detectors):
                    table.writerow([name, *photos, group])
                    kept += 1
    return folder / "people.csv"


def write_prompts(file: Path) -> Path:
    """The prompts with the judge's labels."""
    file.write_text("".join(f"{style}\t{PROMPTS[style]}\n" for style in STYLES), encoding="utf-8")
    return file


def write_judge(settings: config.Config, crops: Path, file: Path) -> Path:
    """The classifier of styles as an ONNX file; its accuracy on filtered photos of unseen people is in it, too."""
    net, trusted = train_judge(crops, settings.seed)
    side = settings.crops.size
    example = torch.zeros(1, 3, side, side)
    names = {"input_names": ["pictures"], "dynamic_axes": {"pictures": [0]}}
    torch.onnx.export(_FromUnit(net.cpu()).eval(), (example,), str(file), dynamo=False, **names)
    model = onnx.load(str(file))
    helper.set_model_props(model, {"labels": json.dumps(list(PHRASES)), "accuracy": f"{trusted:.4f}"})
    onnx.save(model, str(file))
    return file


class _FromUnit(torch.nn.Module):
    """Pictures in [0, 1] for a network that reads [-1, 1]."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.net(2 * pictures - 1)


def _lfw(settings: config.Config, folder: Path) -> dict[str, list[Path]]:
    """Name → two photos, written out of the tars without loss."""
    held_out = test_people(settings.paths.test_people)
    found: dict[str, list[Path]] = {}
    for photo in read_set("lfw", settings.paths.data):
        person = photo.person
        if person in held_out and len(found.setdefault(person, [])) < 2:
            file = folder / person / f"{Path(photo.file).stem}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photo.image).save(file)
            found[person].append(file)
    return {person: photos for person, photos in sorted(found.items()) if len(photos) == 2}


def _london(folder: Path) -> dict[str, list[Path]]:
    return {f"london-{f.name}": [f / "neutral.jpg", f / "smiling.jpg"] for f in sorted(folder.iterdir()) if f.is_dir()}


def _usable(name: str, photos: list[Path], detectors: Sequence[FaceDetector]) -> bool:
    """Whether all agree that there is one face: a second one could be drawn, or judged, in the person's place."""
    for photo in photos:
        counts = [len(detector.detect(load_photo(photo))) for detector in detectors]
        if set(counts) != {1}:
            print(f"{name}: left out, the detectors find {counts} faces in a photo")
            return False
    return True
