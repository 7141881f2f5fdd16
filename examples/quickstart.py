"""The main job on a real photo: `make quickstart`. Runs offline in seconds, on the small model that idgen ships."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from skimage import data

import idgen

output = Path("outputs/quickstart.png")
photo = data.astronaut()  # Eileen Collins, NASA, public domain
styles = ["a photo of a face", "a pencil sketch of a face", "a cartoon of a face"]

pipe: Any = idgen.load_tiny()  # a small Stable Diffusion with its identity adapter
eileen = pipe.encode_identity(photo, name="Eileen")
print(eileen)
pictures = pipe(
    styles,
    id_embeds=eileen,
    num_inference_steps=25,
    guidance_scale=4.0,
    generator=[torch.Generator().manual_seed(0) for _ in styles],
).images

output.parent.mkdir(exist_ok=True)
sheet = Image.new("RGB", (256 * (1 + len(styles)), 256), "white")
for i, picture in enumerate([Image.fromarray(photo[:256, 96:352]), *pictures]):
    sheet.paste(picture.resize((256, 256), Image.Resampling.BICUBIC), (256 * i, 0))
sheet.save(output)
print(f"The pictures, beside the photo: {output.resolve()}")
