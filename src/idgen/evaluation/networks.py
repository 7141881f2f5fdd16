"""Networks that judge pictures: face encoders, a classifier of prompts and CLIP, none of which draws them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import CheckpointError, EvaluationError, MissingDependencyError
from ..faces import FaceAnalyzer, FaceEncoder, align_face
from ..faces.onnx_module import NORMALISATIONS
from ..files import parse_json
from ..typed import check


class OnnxNetwork:
    """An ONNX file that takes pictures, (batch, 3, side, side).

    Args:
        path: Of the file.
        normalisation: One of `NORMALISATIONS`.

    Raises:
        CheckpointError: The file cannot be opened or takes something else.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, normalisation: str = "plain") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingDependencyError(
                "ONNX networks need onnxruntime: pip install 'idgen-diffusers[evaluate]'"
            ) from error
        try:
            self._net: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises kinds of its own, one for each way a file can be wrong
            raise CheckpointError(f"'{path}' could not be opened as an ONNX network: {error}") from error
        entry, *others = self._net.get_inputs()
        if others or len(entry.shape) != 4 or entry.shape[1] != 3 or not isinstance(entry.shape[3], int):
            raise CheckpointError(f"'{path}' takes {entry.shape}, not pictures of the shape (batch, 3, side, side).")
        self._input, self.side, self._one_by_one = entry.name, entry.shape[3], entry.shape[0] == 1
        self.dim = int(self._net.get_outputs()[0].shape[-1])
        self.metadata: dict[str, str] = self._net.get_modelmeta().custom_metadata_map
        self._mean, self._deviation = (np.array(row, np.float32) for row in NORMALISATIONS[normalisation])

    def __call__(self, pictures: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB pictures of any size → (n, dim), float32."""
        sized = [Image.fromarray(p).resize((self.side, self.side), Image.Resampling.BICUBIC) for p in pictures]
        if not sized:
            return np.empty((0, self.dim), np.float32)
        pixels = (np.stack([np.asarray(p, np.float32) / 255 for p in sized]) - self._mean) / self._deviation
        batches = np.array_split(
            pixels.transpose(0, 3, 1, 2), len(sized) if self._one_by_one else len(sized) // 32 + 1
        )
        return np.concatenate([self._net.run(None, {self._input: batch})[0] for batch in batches])


class OnnxEncoder:
    """A face recogniser on 112-px ArcFace crops as `FaceEncoder`; its name is the file's."""

    def __init__(self, path: str | Path, normalisation: str) -> None:
        self._net = OnnxNetwork(path, normalisation)
        self.name, self.dim = f"onnx/{Path(path).stem}", self._net.dim

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return align_face(image, landmarks, size=self._net.side)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        return self._net(crops)


class PromptClassifier:
    """Whether a picture shows what its prompt asks, by a classifier.

    An ONNX file that is fed RGB in [0, 1], returns a score for each label, and lists them as JSON in its metadata
    `labels`.
    """

    def __init__(self, path: str | Path) -> None:
        self._net = OnnxNetwork(path)
        where = f"The labels in '{path}'"
        labels = parse_json(self._net.metadata.get("labels", "[]"), where)
        self.labels: list[str] = check(list[str], labels, where, "labels", CheckpointError)
        if len(self.labels) != self._net.dim:
            raise CheckpointError(
                f"'{path}' has {self._net.dim} outputs and {len(self.labels)} labels in its metadata."
            )

    def __call__(self, pictures: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
        """(n,): 1 where the best label is the prompt's, else 0; raises EvaluationError for an unknown label."""
        if unknown := set(labels) - set(self.labels):
            raise EvaluationError(f"The classifier knows {self.labels}, not {sorted(unknown)}: label the prompts so.")
        return np.array([self.labels[i] for i in self._net(pictures).argmax(-1)]) == np.array(labels)


class Clip:
    """CLIP-T (cosine of text and picture), and picture features for CLIP-I and Fréchet distance."""

    def __init__(self, model: str) -> None:
        from transformers import CLIPModel, CLIPProcessor

        try:
            self._model: Any = CLIPModel.from_pretrained(model, use_safetensors=True).eval()
            self._processor: Any = CLIPProcessor.from_pretrained(model)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"CLIP could not be opened from '{model}': {error}") from error
        self._last: tuple[Sequence[np.ndarray], np.ndarray] | None = None

    @torch.no_grad()
    def features(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """(n, dim), unit length; of pictures that were judged by `__call__` just before, they are not made again."""
        if self._last is not None and self._last[0] is pictures:
            return self._last[1]
        inputs = self._processor(images=[Image.fromarray(p) for p in pictures], return_tensors="pt")
        output = self._model.vision_model(pixel_values=inputs["pixel_values"]).pooler_output
        found = torch.nn.functional.normalize(self._model.visual_projection(output), dim=-1).numpy()
        self._last = pictures, found
        return found

    @torch.no_grad()
    def __call__(self, pictures: Sequence[np.ndarray], prompts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
        """(n,) cosines; a prompt beyond CLIP's 77 tokens is cut."""
        inputs = self._processor(text=list(prompts), return_tensors="pt", padding=True, truncation=True)
        output = self._model.text_model(**inputs).pooler_output
        text = torch.nn.functional.normalize(self._model.text_projection(output), dim=-1).numpy()
        return (self.features(pictures) * text).sum(-1)


def open_encoder(name: str) -> FaceEncoder:
    """A face encoder by what the command line calls it.

    Args:
        name: "dlib-resnet-v1", "insightface/PACK", "sface:FILE-OR-HUB-ID", or how an ONNX file of 112-px crops is fed
            and its path: "arcface:FILE" (RGB in [-1, 1]) or "imagenet:FILE".

    Raises:
        EncoderMismatchError, CheckpointError: There is no such encoder, or it cannot be opened.
    """
    kind, _, path = name.partition(":")
    if kind == "sface" and path:
        from ..faces.opencv import SFaceEncoder

        return SFaceEncoder(path)
    if kind in ("arcface", "imagenet") and path:
        return OnnxEncoder(path, kind)
    if name.endswith(".onnx"):
        raise EvaluationError(
            f"Is '{name}' fed by ArcFace's or ImageNet's mean? Say arcface:{name} or imagenet:{name}."
        )
    return FaceAnalyzer.for_encoder(name).encoder
