"""Train a small classifier of the styles on filtered photos: the `--classifier` of `idgen evaluate`.

    python train/tiny/judge.py train/tiny/tiny.toml judge.onnx

Half of its training pictures are softened: a classifier of sharp pictures alone took generated oil paintings for
photos. Its accuracy on pictures of held-out people is stored in the file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from recipe.captions import PHRASES
from recipe.config import Config, load_config
from recipe.crops import open_crops
from recipe.device import device
from recipe.loop import random_for
from torch import nn
from tqdm import trange

BATCH, STEPS = 64, 600


def train_judge(settings: Config) -> tuple[nn.Module, float]:
    """The classifier of pictures in [0, 1], and its accuracy on held-out people, a mean over styles."""
    torch.manual_seed(settings.seed)
    net = _network(len(PHRASES)).to(device())
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, STEPS)
    images, styles = _examples(settings, "train")
    rows_of = [np.flatnonzero(styles == style) for style in range(len(PHRASES))]
    for step in trange(STEPS, desc="judge", mininterval=10):
        random = random_for(settings.seed, step)
        wanted = torch.randint(len(PHRASES), (BATCH,), generator=random)  # all styles are equally frequent
        chosen = [int(r[int(torch.randint(len(r), (1,), generator=random))]) for r in (rows_of[w] for w in wanted)]
        loss = F.cross_entropy(net(_soften(_pixels(images[chosen]), random)), wanted.to(device()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    images, styles = _examples(settings, "test")
    parts = np.array_split(images, len(images) // 64 + 1)
    with torch.no_grad():
        right = torch.cat([net(_pixels(part)).argmax(1).cpu() for part in parts]).numpy() == styles
    return net, float(np.mean([right[styles == style].mean() for style in np.unique(styles)]))


def write_judge(settings: Config, file: Path) -> None:
    """Train the classifier and write it with its labels and its accuracy."""
    net, accuracy = train_judge(settings)
    example = torch.zeros(1, 3, settings.crops.size, settings.crops.size)
    names = {"input_names": ["pictures"], "dynamic_axes": {"pictures": [0]}}
    torch.onnx.export(net.cpu().eval(), (example,), str(file), dynamo=False, **names)
    model = onnx.load(str(file))
    helper.set_model_props(model, {"labels": json.dumps(list(PHRASES)), "accuracy": f"{accuracy:.4f}"})
    onnx.save(model, str(file))


def _pixels(images: np.ndarray) -> torch.Tensor:
    """(n, side, side, 3) uint8 -> (n, 3, side, side) in [0, 1]."""
    return torch.from_numpy(images).to(device()).permute(0, 3, 1, 2).float() / 255


def _soften(pixels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Remove some sharpness from half of the pictures, by an amount that differs from batch to batch."""
    side = pixels.shape[-1]
    smaller = int(torch.randint(side // 3, side, (1,), generator=random))
    soft = F.interpolate(pixels, smaller, mode="bilinear", antialias=True)
    soft = F.interpolate(soft, side, mode="bilinear")
    chosen = (torch.rand(len(pixels), generator=random) < 0.5).to(pixels.device)
    return torch.where(chosen[:, None, None, None], soft, pixels)


def _examples(settings: Config, part: str) -> tuple[np.ndarray, np.ndarray]:
    data = open_crops(settings.stages["crops"], part)
    plain = np.zeros(len(data["images"]), np.int8)
    return np.concatenate([data["images"], data["styled"]]), np.concatenate([plain, data["styled_as"]])


def _network(classes: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.BatchNorm2d(3)]
    for before, after in ((3, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    write_judge(load_config(arguments.settings), arguments.output)


if __name__ == "__main__":
    main()
