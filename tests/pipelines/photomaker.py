"""A tiny PhotoMaker in a tiny SDXL, and photos of people that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from idgen.faces import Detection, FaceAnalyzer
from tests.checkpoints.published_photomaker import PhotoMakerFile, tiny_photomaker
from tests.components import make_pipeline, make_text_encoder

CROSS, SIDE = 128, 28
PROMPT = "a b man <id> c d"
ENCODERS = {"photomaker-v1": ("dlib-resnet-v1", 128), "photomaker-v2": ("insightface/buffalo_l", 8)}


class Middle:
    """Finds one face, in the middle of any photo."""

    def detect(self, photo: np.ndarray) -> list[Detection]:
        height, width = photo.shape[:2]
        points = np.array([[-3.0, -3], [3, -3], [0, 0], [-2, 3], [2, 3]])
        return [Detection.at(points + np.array([width / 2, height / 2]))]


class Colours:
    """Embeds the colours of a crop."""

    def __init__(self, name: str, dim: int) -> None:
        self.name, self.dim = name, dim

    def crop(self, photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return photo[:8, :8]

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return crops.reshape(len(crops), -1)[:, : self.dim].astype(np.float32) / 64 - 1


def photo(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def analyzer_for(variant: str) -> FaceAnalyzer:
    return FaceAnalyzer(Middle(), Colours(*ENCODERS[variant]))  # pyright: ignore[reportArgumentType]


def make_photomaker(
    variant: str, folder: Path, task: str = "txt2img", controlnet: bool = False, seed: int = 0
) -> tuple[Any, PhotoMakerFile]:
    """A stock pipeline that a tiny file fits, and the file, which lies in the folder."""
    pipeline = make_pipeline("sdxl", task, controlnet, cross_attention_dim=CROSS)
    pipeline.register_modules(
        text_encoder=make_text_encoder(dim=CROSS // 2), text_encoder_2=make_text_encoder(True, dim=CROSS // 2)
    )
    pipeline.tokenizer_2.pad_token = "z"  # each text encoder has its own padding
    file = tiny_photomaker(variant, pipeline.unet, seed=seed)
    file.write(folder)
    return pipeline, file


def load(pipeline: Any, file: PhotoMakerFile, folder: Path) -> Any:
    pipeline.load_id_adapter(folder / file.name, face_analyzer=analyzer_for(file.variant))
    return pipeline


def embeddings(variant: str, photos: list[np.ndarray]) -> torch.Tensor:
    """Raw embeddings of photos, (photos, dim)."""
    encoder = Colours(*ENCODERS[variant])
    return torch.from_numpy(encoder.embed(np.stack([encoder.crop(each, np.zeros((5, 2))) for each in photos])))
