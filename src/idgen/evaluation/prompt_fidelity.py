"""Whether pictures show what their prompts ask for, by a classifier or by CLIP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import CheckpointError, EvaluationError
from ..faces.onnx_encoder import OnnxNetwork
from ..files import parse_json
from ..typed import check


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
            raise EvaluationError(
                f"The classifier has no labels {sorted(unknown)}. Label the prompts with {self.labels}."
            )
        return np.array(self.labels_of(pictures)) == np.array(labels)

    def labels_of(self, pictures: Sequence[np.ndarray]) -> list[str]:
        """The label of each picture."""
        return [self.labels[i] for i in self._net(pictures).argmax(-1)]


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
