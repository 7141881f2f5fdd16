"""The main job on a real photo: `make quickstart`. Runs offline in seconds, on the small model that idgen ships."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from skimage import data

import idgen
from idgen.faces import DlibEncoder

output = Path("outputs/quickstart.png")
photo = data.astronaut()  # Eileen Collins, NASA, public domain

pipe: Any = idgen.load_tiny()
torch.manual_seed(0)
adapter = idgen.IdentityAdapter.from_unet(pipe.unet, encoder=DlibEncoder.name, embedding_dim=DlibEncoder.dim)
pipe.load_id_adapter(adapter)  # from a folder or the hub for real work; this one is new and has learnt nobody yet

eileen = pipe.encode_identity(photo, name="Eileen")
print(eileen)
image = pipe(
    "a photo of a face",
    id_embeds=eileen,
    id_scale=0.8,
    num_inference_steps=20,
    guidance_scale=3.0,
    generator=torch.Generator().manual_seed(0),
).images[0]

output.parent.mkdir(exist_ok=True)
sheet = Image.new("RGB", (512, 256), "white")
sheet.paste(Image.fromarray(photo).resize((256, 256)), (0, 0))
sheet.paste(image.resize((256, 256), Image.Resampling.BICUBIC), (256, 0))
sheet.save(output)
print(f"The picture, beside the photo: {output.resolve()}")
