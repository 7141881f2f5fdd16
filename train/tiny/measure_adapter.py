"""Does the adapter draw the person? People held out, judged by an encoder that nothing was trained with.

    python train/tiny/measure_adapter.py train/tiny/tiny.toml --plot docs/images/results/stages.png

Each person is drawn from one photo and compared with another one. Rows share their seeds; intervals are bootstraps
over people.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from recipe.adapter import open_base
from recipe.config import Config, load_config
from recipe.crops import open_crops, template
from recipe.likeness import UnseenEncoder, default_features

from idgen import Identity, IdentityAdapter
from idgen.faces import DlibDetector, DlibEncoder

PROMPT = "a photo of a face"
STAGES = {
    "joint/adapter": "with the base",
    "adapter/checkpoint-250": "stage one, 250 updates",
    "adapter": "stage one, all",
    "reward": "stage two",
    "averaged": "the two averaged",
}
"""Folders of a training, in its order."""


def pairs(settings: Config, people: int) -> dict[str, np.ndarray]:
    """Of the people held out who have two photos: rows of the reference and of another photo, and both encoders'
    embeddings of all photos."""
    cache = settings.paths.cache
    names = open_crops(cache / "crops", "test")["person"]
    with np.load(cache / "embeddings" / "test.npz", allow_pickle=False) as arrays:
        embeds, unseen = arrays["embeds"], arrays["unseen"]
    rows = [np.flatnonzero(names == name)[:2] for name in np.unique(names)]
    chosen = np.stack([row for row in rows if len(row) == 2][:people])
    return {"reference": chosen[:, 0], "target": chosen[:, 1], "embeds": embeds, "unseen": unseen}


def draw(pipe: Any, people: list[Identity] | None, count: int, seeds: int) -> np.ndarray:
    """(people, seeds, 64, 64, 3) uint8; the noise of a seed is the same for everybody and in every row."""
    drawn = []
    for seed in range(seeds):
        for start in range(0, count, 20):
            part = slice(start, min(count, start + 20))
            size = part.stop - part.start
            options = {} if people is None else {"id_embeds": people[part]}
            generators = [torch.Generator().manual_seed(seed) for _ in range(size)]
            images = pipe(
                [PROMPT] * size, num_inference_steps=25, guidance_scale=2.0, generator=generators, **options
            ).images
            drawn += [np.asarray(image) for image in images]
    return np.stack(drawn).reshape(seeds, count, *drawn[0].shape).swapaxes(0, 1)


def judge(pictures: np.ndarray, data: dict[str, np.ndarray], settings: Config) -> dict[str, Any]:
    """Mean cosines with 95 % intervals, and the share of pictures with a face."""
    people, seeds = pictures.shape[:2]
    flat, points = pictures.reshape(-1, *pictures.shape[2:]), template(settings.crops)
    unseen = UnseenEncoder(settings.paths.yunet.with_name("mobilefacenet_eval.onnx")).embed_tiny(flat, points)
    own = default_features(flat, points)
    detector = DlibDetector()
    found = {
        "Sim(GT), unseen encoder": (unseen, data["unseen"][data["target"]]),
        "Sim(Ref), unseen encoder": (unseen, data["unseen"][data["reference"]]),
        "Sim(GT), own encoder": (own, data["embeds"][data["target"]]),
        "other people, unseen encoder": (unseen, np.roll(data["unseen"][data["target"]], 1, 0)),
    }
    results: dict[str, Any] = {
        name: interval(cosines(a, np.repeat(b, seeds, 0)).reshape(people, seeds).mean(1))
        for name, (a, b) in found.items()
    }
    results["faces found"] = float(np.mean([bool(detector.detect(picture)) for picture in flat]))
    return results


def plot(results: dict[str, Any], file: Path) -> None:
    """Sim(GT) of unseen people by the unseen encoder, with 95 % intervals, in the order of the training."""
    rows = [result["Sim(GT), unseen encoder"] for result in results.values()]
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    reach = [[mean - low for mean, low, _ in rows], [high - mean for mean, _, high in rows]]
    axes.errorbar(range(len(rows)), [mean for mean, *_ in rows], yerr=reach, marker="o", capsize=4)
    axes.set_xticks(range(len(rows)), [STAGES.get(name, name) for name in results], fontsize=8)
    axes.set_ylabel("Sim(GT), unseen encoder")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Row by row, of (n, dim)."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def interval(values: np.ndarray) -> list[float]:
    """Mean, and the 95 % interval of a bootstrap over people."""
    random = np.random.default_rng(0)
    means = [random.choice(values, len(values)).mean() for _ in range(2000)]
    return [round(float(v), 4) for v in (values.mean(), *np.percentile(means, [2.5, 97.5]))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--adapters", nargs="+", default=list(STAGES), help="folders in the cache")
    parser.add_argument("--plot", type=Path, help="where a diagram of Sim(GT) goes")
    parser.add_argument("--sheet", type=Path, help="where a contact sheet of generated faces goes")
    arguments = parser.parse_args()
    settings = load_config(arguments.settings)
    cache = settings.paths.cache
    pipe: Any = open_base({name: cache / name for name in ("autoencoder", "base", "joint")}).pipeline
    pipe.set_progress_bar_config(disable=True)
    data = pairs(settings, arguments.people)
    count = len(data["reference"])
    embeds = torch.from_numpy(data["embeds"][data["reference"]])
    people = [Identity(embeddings=row[None], encoder=DlibEncoder.name) for row in embeds]
    rows, results = [draw(pipe, None, 1, arguments.seeds).repeat(count, 0)], {}
    results["no identity"] = judge(rows[0], data, settings)
    for name in arguments.adapters:
        pipe.load_id_adapter(IdentityAdapter.from_pretrained(cache / name))
        rows.append(draw(pipe, people, count, arguments.seeds))
        results[name] = judge(rows[-1], data, settings)
        pipe.unload_id_adapter()
    print(json.dumps(results, indent=2))
    if arguments.plot is not None:
        plot(results, arguments.plot)
    if arguments.sheet is not None:
        strips = [np.concatenate(list(row[:12, 0]), 1) for row in rows]
        Image.fromarray(np.concatenate(strips)).save(arguments.sheet)


if __name__ == "__main__":
    main()
