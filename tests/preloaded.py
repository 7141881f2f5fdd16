"""The classes of libraries that most commands use: both libraries import a class when it is asked for by name."""

from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

__all__ = ["CLIPTextModel", "CLIPTokenizer", "StableDiffusionPipeline"]
