"""Draw what is no face, by an encoder of your own: textures. python examples/own_encoder.py

The encoder is a network and a way to crop. All commands take it as FILE.py:CLASS.
"""

import sys
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image
from torch import nn

from idgen import FaceAnalyzer, IdentityAdapter, enroll, load_tiny
from idgen.cli import main
from idgen.faces import ARCFACE_TEMPLATE, AlignedEncoder, WholePicture


class FilterResponses(nn.Module):
    """Mean and deviation of the responses of random filters, which tell textures apart."""

    weight: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(32, 3, 7, 7, generator=torch.Generator().manual_seed(0))
        self.register_buffer("weight", weight - weight.mean((2, 3), keepdim=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, 56, 56), RGB in [0, 1] → (batch, 64)."""
        found = nn.functional.conv2d(images, self.weight).abs().flatten(2)
        return torch.cat([found.mean(2), found.std(2)], 1)


class Textures(AlignedEncoder):
    """The middle of a picture → an embedding of its texture."""

    name, dim, size = "textures", 64, 56
    template = ARCFACE_TEMPLATE * size / 112
    detector = WholePicture()

    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        return FilterResponses()


def run(*arguments: str) -> None:
    """Run a command of idgen, as a shell does."""
    sys.argv = ["idgen", *arguments]
    main()


if __name__ == "__main__":
    spec = f"{__file__}:Textures"
    for name in ("brick", "grass", "gravel", "coffee"):  # a folder for each "person", with four pictures
        picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
        Path("photos", name).mkdir(parents=True, exist_ok=True)
        for i, (x, y) in enumerate(((0, 0), (200, 0), (0, 200), (200, 200))):
            picture.crop((x, y, x + 160, y + 160)).save(Path("photos", name, f"{i}.png"))

    run("enroll", "photos/brick/0.png", "--encoder", spec, "--output", "brick.safetensors")
    shares = ("--test-share", "0", "--validation-share", "0")
    run("prepare", "photos", "--output", "shards", "--encoder", spec, "--engine", "inprocess", *shares)
    length = ("--max_train_steps", "3", "--train_batch_size", "4", "--validation_people", "0")
    losses = ("--losses", "identity=1", "contrastive=0", "preservation=0")
    data = ("--train_data_dir", "shards", "--output_dir", "run", "--encoder", spec)
    run("train", "denoise", *data, *losses, *length)
    assert IdentityAdapter.from_pretrained("run").config["encoder"] == "textures"

    analyzer = FaceAnalyzer.open(spec)
    pipe: Any = load_tiny()
    pipe.unload_id_adapter()
    pipe.load_id_adapter("run", face_analyzer=analyzer)
    image = pipe("a photo", id_image="photos/brick/1.png", num_inference_steps=2).images[0]
    shown, photo = (enroll(one, analyzer).embedding(normalised=True) for one in (image, "photos/brick/1.png"))
    for name in ("brick", "grass", "gravel", "coffee"):
        other = enroll(f"photos/{name}/2.png", analyzer).embedding(normalised=True)
        print(f"similarity to {name}: picture {shown @ other:.3f}, photo of bricks {photo @ other:.3f}")
