"""Face encoders with a gradient, by name."""

from __future__ import annotations

from ..errors import EncoderMismatchError
from ..faces import AlignedEncoder, open_encoder
from .face_embedder import FaceEmbedder


def open_embedder(name: str, checkpointing: bool = False) -> FaceEmbedder:
    """A face encoder with a gradient, by its name on the command line.

    Args:
        name: As for `open_encoder`.
        checkpointing: Recompute activations in the backward pass: less memory, more time.

    Raises:
        EncoderMismatchError: There is no encoder of this name, or it has no gradient.
        CheckpointError: The file or the pack cannot be opened as a recogniser.
        MissingDependencyError: onnx, onnxruntime or insightface is not installed.
    """
    encoder = open_encoder(name)
    if not isinstance(encoder, AlignedEncoder):
        raise EncoderMismatchError(
            f"The face encoder '{name}' has no gradient. Losses and rewards need one that is derived from "
            "idgen.faces.AlignedEncoder."
        )
    return FaceEmbedder(
        name=encoder.name,
        encoder=encoder.torch_module(checkpointing),
        template=encoder.template,
        size=encoder.size,
        detector=getattr(encoder, "detector", None),
    )
