"""Show a running training or a finished base: a sheet of generated pictures, and how well it reconstructs.

    python train/tiny/preview.py train/tiny/tiny.toml sheet.png
    python train/tiny/preview.py train/tiny/tiny128.toml sheet.png --base BASE --people 300

Without --base it reads the averaged weights of the last checkpoints of base and autoencoder, and changes nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from diffusers.training_utils import EMAModel
from PIL import Image
from recipe.base import Model, open_tokenizer
from recipe.captions import PROMPTS
from recipe.config import Config, load_config
from recipe.crops import open_crops
from recipe.package import build_pipeline
from recipe.reconstruction import reconstruction
from torch import nn

from idgen.faces import open_encoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--people", type=int, default=100, help="held-out people for the autoencoder; 0 for none")
    parser.add_argument("--base", type=Path, help="folder of a finished base")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_config(arguments.settings)
    pipe: Any = finished_base(arguments.base) if arguments.base else running_base(settings)
    if arguments.people:
        judge = open_encoder(f"imagenet:{settings.path('yunet').with_name('mobilefacenet_eval.onnx')}")
        crops = open_crops(settings.stages["crops"], "test")
        figures = reconstruction(pipe.vae, crops, settings.crops.template, judge, arguments.people)
        print(json.dumps(figures, indent=2))
    pipe.set_progress_bar_config(disable=True)
    rows = [row(pipe, prompt, arguments.seeds, arguments.guidance) for prompt in PROMPTS.values()]
    Image.fromarray(np.concatenate([row(pipe, "", arguments.seeds, 1.0), *rows])).save(arguments.sheet)


def row(pipe: Any, prompt: str, seeds: int, guidance: float) -> np.ndarray:
    """Pictures of one prompt side by side, one for each seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    made = pipe([prompt] * seeds, num_inference_steps=25, guidance_scale=guidance, generator=generators)
    return np.concatenate([np.asarray(image) for image in made.images], axis=1)


def finished_base(folder: Path) -> StableDiffusionPipeline:
    """The pipeline of a folder, in float32."""
    return StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)


def running_base(settings: Config) -> StableDiffusionPipeline:
    """The averaged networks of the trainings of base and autoencoder."""
    model = current_base(settings)
    parts = {"text_encoder": model.text_encoder, "tokenizer": model.tokenizer, "unet": model.unet}
    return build_pipeline(vae=current_autoencoder(settings), **parts)


def current_autoencoder(settings: Config) -> AutoencoderTiny:
    """The averaged network of the phase that is running or ran last."""
    folder = settings.stages["autoencoder"]
    net = AutoencoderTiny.from_pretrained(settings.stages["encoder"])
    for number in range(1, len(settings.autoencoder.phases) + 1):
        if (folder / str(number) / "state.pt").exists():
            trained = net.decoder if settings.start else net
            read_average(trained, folder / str(number) / "state.pt")
    return net


def current_base(settings: Config) -> Model:
    """The averaged networks of the base's training."""
    ours = settings.autoencoder
    folder, side = settings.stages["base"], settings.crops.size >> (len(ours.encoder_blocks) - 1)
    assert settings.base is not None
    tokenizer = open_tokenizer(folder / "tokenizer", settings.base.text_length)
    model = Model(settings.base, tokenizer, ours.latent_channels, side)
    read_average(model, folder / "state.pt")
    return model.eval()


def read_average(net: nn.Module, file: Path) -> None:
    """Load the averaged weights of a checkpoint, and print how much of its budget was used."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    average = EMAModel(net.parameters())
    average.load_state_dict(state["average"])
    average.copy_to(net.parameters())
    print(f"{file.parent.name}: {state['spent']}")


if __name__ == "__main__":
    main()
