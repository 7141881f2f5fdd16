"""What most commands import when they come to it: classes of libraries by their names, and all that draws a report.

dlib's detector, which takes half a second to make, is made here once for all forks. So is a picture of a figure: the
first one searches the fonts. No fork searches all of it for garbage.
"""

import gc

import numpy as np
from diffusers import DDIMScheduler, StableDiffusionPipeline
from diffusers.pipelines import auto_pipeline
from transformers import CLIPTextModel, CLIPTokenizer

from idgen.evaluation import synthetic_set
from idgen.faces import DlibDetector
from idgen.pages import figure_uri, new_figure

DlibDetector().run(np.zeros((80, 80, 3), np.uint8))
figure_uri(new_figure()[0])
gc.freeze()

__all__ = [
    "CLIPTextModel",
    "CLIPTokenizer",
    "DDIMScheduler",
    "StableDiffusionPipeline",
    "auto_pipeline",
    "synthetic_set",
]
