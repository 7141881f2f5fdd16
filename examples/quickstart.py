"""The main job on a real photo: `make quickstart`. Runs offline in seconds, on the small model that idgen ships.

    python examples/quickstart.py [--eval-encoder imagenet:FILE.onnx]

Likeness is judged by the face encoder that the adapter reads, and by a second one if you have one.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from skimage import data

import idgen
from idgen import FaceAnalyzer
from idgen.evaluation import cosine_similarity
from idgen.faces import open_encoder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--eval-encoder", help="as for `idgen evaluate`: a face recogniser that the adapter has never met")
arguments = parser.parse_args()

output = Path("outputs/quickstart.png")
photo = data.astronaut()  # Eileen Collins, NASA, public domain
styles = ["a photo of a face", "a pencil sketch of a face", "a cartoon of a face"]


def draw(**identity: Any) -> list[Image.Image]:
    generators = [torch.Generator().manual_seed(14) for _ in styles]  # one of the better of sixteen
    found = pipe(styles, num_inference_steps=25, guidance_scale=3.0, generator=generators, **identity).images
    return [picture.resize((256, 256), Image.Resampling.BICUBIC) for picture in found]


def likeness(pictures: list[Image.Image], judge: FaceAnalyzer) -> str:
    reference = judge.find(photo).embedding
    faces = [judge.analyze(picture) for picture in pictures]
    cosines = [float(cosine_similarity(found[0].embedding, reference)) if found else 0.0 for found in faces]
    return "  ".join(f"{cosine:.3f}" for cosine in cosines)  # 0 where no face is found


pipe: Any = idgen.load_tiny()  # a small Stable Diffusion with its identity adapter
eileen = pipe.encode_identity(photo, name="Eileen")
print(eileen)
hers, nobodys = draw(id_embeds=eileen), draw()

judges = {"the adapter's own encoder": FaceAnalyzer()}
if arguments.eval_encoder:
    judges["an encoder it never met"] = FaceAnalyzer(encoder=open_encoder(arguments.eval_encoder))
for name, judge in judges.items():
    print(f"Cosine to the photo by {name}: {likeness(hers, judge)}; without her: {likeness(nobodys, judge)}")

output.parent.mkdir(exist_ok=True)
sheet = Image.new("RGB", (256 * (1 + len(styles)), 256), "white")
for i, picture in enumerate([Image.fromarray(photo[:256, 96:352]), *hers]):
    sheet.paste(picture, (256 * i, 0))
sheet.save(output)
print(f"The pictures, beside the photo: {output.resolve()}")
