"""Mark a picture, read the marks again, and refuse a person: python examples/marks_and_limits.py"""

import io
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from skimage import data

import idgen
from idgen.errors import BlockedIdentityError
from idgen.provenance import IdentityBlocklist, mark, read_settings, read_watermark

output = Path("outputs/marked.png")
photo = data.astronaut()  # Eileen Collins, NASA, public domain

pipe: Any = idgen.load_tiny()
settings = {"prompt": "an oil painting of a face", "num_inference_steps": 20, "guidance_scale": 3.0}
picture = pipe(**settings, id_image=photo, generator=torch.Generator().manual_seed(0)).images[0]

output.parent.mkdir(exist_ok=True)
output.write_bytes(mark(picture, {**settings, "base": "tiny", "seed": 0}))
print(f"{output} says: {read_settings(output)}")
print(f"of 32 bits of the watermark agree: {read_watermark(Image.open(output)).agreeing}")

jpeg = io.BytesIO()
Image.open(output).resize((48, 48)).save(jpeg, "JPEG", quality=95)
print(
    f"after resizing and JPEG: {read_watermark(Image.open(jpeg)).agreeing}; settings: {read_settings(jpeg.getvalue())}"
)

pipe.id_blocklist = IdentityBlocklist.of(pipe.encode_identity(photo))
try:
    pipe(**settings, id_image=photo[:, ::-1])  # mirrored, and still she
except BlockedIdentityError as error:
    print(f"refused: {error}")
