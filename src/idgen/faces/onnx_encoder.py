"""ONNX files run by onnxruntime: networks on pictures, and face encoders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from ..errors import CheckpointError, MissingDependencyError
from .encoder import AlignedEncoder, NetworkInput, NormalisedInput

PLAIN = NetworkInput(mean=(0.0, 0.0, 0.0), deviation=(1.0, 1.0, 1.0))
ARCFACE = NetworkInput()
IMAGENET = NetworkInput(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))


class OnnxNetwork:
    """An ONNX file that takes pictures, (batch, 3, side, side).

    Args:
        path: Of the file.
        read: How the network is fed.

    Raises:
        CheckpointError: The file cannot be opened or takes something else.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, read: NetworkInput = PLAIN) -> None:
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
        if others or not _takes_squares(entry.shape):
            raise CheckpointError(f"'{path}' takes {entry.shape}, not pictures of the shape (batch, 3, side, side).")
        self._input, self.side, self._one_by_one = entry.name, entry.shape[3], entry.shape[0] == 1
        self.dim = int(self._net.get_outputs()[0].shape[1])
        self.metadata: dict[str, str] = self._net.get_modelmeta().custom_metadata_map
        self._read = read
        self._mean, self._deviation = (np.array(row, np.float32) for row in (read.mean, read.deviation))

    def __call__(self, pictures: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB pictures of any size → (n, dim), float32."""
        sized = [Image.fromarray(p).resize((self.side, self.side), Image.Resampling.BICUBIC) for p in pictures]
        if not sized:
            return np.empty((0, self.dim), np.float32)
        pixels = np.stack([np.asarray(p, np.float32) / 255 for p in sized])
        pixels = pixels[..., ::-1] if self._read.colours == "BGR" else pixels
        pixels = ((pixels - self._mean) / self._deviation).transpose(0, 3, 1, 2)
        batches = np.array_split(pixels, len(sized) if self._one_by_one else len(sized) // 32 + 1)
        found = np.concatenate([self._net.run(None, {self._input: batch})[0] for batch in batches])
        return found.reshape(len(found), -1)


def _takes_squares(shape: Sequence[Any]) -> bool:
    return len(shape) == 4 and shape[1] == 3 and isinstance(shape[3], int) and shape[2] == shape[3]


class OnnxEncoder(AlignedEncoder):
    """A recogniser in an ONNX file. onnxruntime embeds; for a gradient the network is read as a torch module.

    Its name holds the file's name and a hash of its content and of how it is fed: embeddings of two networks are never
    taken for those of one.

    Args:
        path: ONNX file.
        read: How the network is fed.
        name: Its name, instead of "onnx/FILE-HASH".

    Raises:
        CheckpointError: The file cannot be opened as a network on square crops.
        MissingDependencyError: onnxruntime is not installed.
    """

    def __init__(self, path: str | Path, read: NetworkInput = ARCFACE, name: str | None = None) -> None:
        self._net = OnnxNetwork(path, read)
        self._path, self._read = Path(path), read
        self.name = name or f"onnx/{self._path.stem}-{_hash(self._path, read)}"
        self.dim, self.size = self._net.dim, self._net.side
        self.template = read.template_at(self.size)

    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        """See `AlignedEncoder`; raises as `OnnxModule`."""
        return differentiable(self._path, self._read, checkpointing)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `FaceEncoder`."""
        return self._net(crops)


def differentiable(path: str | Path, read: NetworkInput, checkpointing: bool = False) -> nn.Module:
    """The network of an ONNX file with a gradient, see `AlignedEncoder.torch_module`; raises as `OnnxModule`."""
    from .onnx_module import OnnxModule

    return NormalisedInput(OnnxModule(path, checkpointing), read).eval()


def _hash(path: Path, read: NetworkInput) -> str:
    """Eight hexadecimal digits."""
    digest = hashlib.sha256(repr((read.colours, read.mean, read.deviation, read.template_at(1).tolist())).encode())
    with path.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:8]
