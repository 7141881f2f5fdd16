"""Two people in one picture, and everybody between them: python examples/several_people.py"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

import idgen

output = Path("outputs/several_people.png")

pipe: Any = idgen.load_tiny()

eileen = pipe.encode_identity(data.astronaut(), name="Eileen")  # Eileen Collins, NASA, public domain
nobody = idgen.Identity.random(eileen.encoder, eileen.dim, norm=1.5, seed=1)
settings: dict[str, Any] = {"prompt": "a photo of a face", "num_inference_steps": 20, "guidance_scale": 3.0}

left = np.zeros((128, 128), bool)
left[:, :64] = True
both = pipe(**settings, id_embeds=[eileen, nobody], id_masks=[left, ~left], generator=torch.Generator().manual_seed(0))

between = [idgen.Identity.mix(eileen, nobody, t) for t in (0, 0.25, 0.5, 0.75, 1)]
row = [pipe(**settings, id_embeds=who, generator=torch.Generator().manual_seed(0)).images[0] for who in between]

output.parent.mkdir(exist_ok=True)
sheet = Image.new("RGB", (128 * (1 + len(row)), 128))
for i, picture in enumerate([both.images[0], *row]):
    sheet.paste(picture, (128 * i, 0))
sheet.save(output)
print(f"Both in one picture, then from one to the other: {output.resolve()}")
