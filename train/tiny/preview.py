"""Look at trainings that are still running: a sheet of pictures and the autoencoder's figures, from the averages.

    python train/tiny/preview.py train/tiny/tiny128.toml sheet.png

The last checkpoint of base and autoencoder is read, and nothing is changed. Only generated pictures are drawn.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from diffusers.training_utils import EMAModel
from PIL import Image
from recipe.base import Model, build_scheduler, open_tokenizer
from recipe.captions import PROMPTS
from recipe.config import Config, load_config
from recipe.crops import open_crops, template
from recipe.likeness import UnseenEncoder
from recipe.reconstruction import reconstruction
from torch import nn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("sheet", type=Path)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--people", type=int, default=100, help="on whom the autoencoder is measured; 0 for none")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_config(arguments.settings)
    autoencoder, model = current_autoencoder(settings), current_base(settings)
    if arguments.people:
        judge = UnseenEncoder(settings.paths.yunet.with_name("mobilefacenet_eval.onnx"))
        crops = open_crops(settings.paths.cache / "crops", "test")
        figures = reconstruction(autoencoder, crops, template(settings.crops), judge, arguments.people)
        print(json.dumps(figures, indent=2))
    pipe = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        scheduler=build_scheduler(),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    rows = [row(pipe, prompt, arguments.seeds, arguments.guidance) for prompt in PROMPTS.values()]
    Image.fromarray(np.concatenate([row(pipe, "", arguments.seeds, 1.0), *rows])).save(arguments.sheet)


def row(pipe: StableDiffusionPipeline, prompt: str, seeds: int, guidance: float) -> np.ndarray:
    """Pictures of one prompt side by side, one for each seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
    made = pipe([prompt] * seeds, num_inference_steps=25, guidance_scale=guidance, generator=generators)
    return np.concatenate([np.asarray(image) for image in made.images], axis=1)


def current_autoencoder(settings: Config) -> AutoencoderTiny:
    """The averaged network of the phase that is running or was last."""
    folder = settings.paths.cache / "autoencoder"
    net = AutoencoderTiny.from_pretrained(settings.paths.cache / "encoder")
    for number in range(1, len(settings.autoencoder.phases) + 1):
        if (folder / str(number) / "state.pt").exists():
            trained = net if settings.autoencoder.components is None else net.decoder
            read_average(trained, folder / str(number) / "state.pt")
    return net


def current_base(settings: Config) -> Model:
    """The averaged networks of the base's training."""
    ours = settings.autoencoder
    folder, side = settings.paths.cache / "base", settings.crops.size >> (len(ours.encoder_blocks) - 1)
    tokenizer = open_tokenizer(folder / "tokenizer", settings.base.text_length)
    model = Model(settings.base, tokenizer, ours.latent_channels, side)
    read_average(model, folder / "state.pt")
    return model.eval()


def read_average(net: nn.Module, file: Path) -> None:
    """Give `net` the averaged weights of a checkpoint, and print how far that is."""
    state = torch.load(file, map_location="cpu", weights_only=True)
    average = EMAModel(net.parameters())
    average.load_state_dict(state["average"])
    average.copy_to(net.parameters())
    print(f"{file.parent.name}: {state['spent']}")


if __name__ == "__main__":
    main()
