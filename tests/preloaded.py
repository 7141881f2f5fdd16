"""The classes of libraries that most commands use: both libraries import a class when it is asked for by name.

dlib's detector, which takes half a second to make, is made here once for all forks.
"""

import numpy as np
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from idgen.faces import DlibDetector

DlibDetector().run(np.zeros((80, 80, 3), np.uint8))

__all__ = ["CLIPTextModel", "CLIPTokenizer", "StableDiffusionPipeline"]
