"""The face encoders of a run: the one that the adapter reads, and those of its losses or rewards."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..data.manifest import Manifest
from ..faces import register_encoder, spec_of
from ..faces.expression import EXPRESSION
from ..losses import FaceEmbedder
from ..losses.embedders import open_embedder
from .config import DenoisingConfig
from .run_config import ShardConfig


@dataclass(frozen=True)
class RunEncoders:
    """Stored names of face encoders.

    Attributes:
        adapter: The one whose embeddings the adapter reads.
        compared: Those of the losses or rewards; the first one is the main one. By default the adapter's, or that of
            the shards if the adapter reads expressions or is trained beside another one, which gives the person.
    """

    adapter: str
    compared: tuple[str, ...]

    @classmethod
    def of(cls, config: ShardConfig, manifest: Manifest | None = None) -> RunEncoders:
        """The encoders of a configuration.

        Args:
            config: Configuration of a run.
            manifest: Manifest of its shards, which is opened if it is not given.

        Raises:
            DataError: The shards cannot be read.
            EncoderMismatchError, CheckpointError: As `open_encoder`.
        """
        manifest, given = manifest or Manifest.open(config.train_data_dir), config.data.encoder
        adapter = manifest.encoder if given is None else register_encoder(given)
        named = () if config.terms is None else config.terms.encoder
        compared = tuple(dict.fromkeys(map(register_encoder, named)))
        beside = isinstance(config, DenoisingConfig) and config.adapter.beside is not None
        return cls(adapter, compared or (manifest.encoder if beside or adapter == EXPRESSION else adapter,))

    def open(self, device: torch.device) -> list[FaceEmbedder]:
        """The encoders of the losses or rewards, with a gradient; raises as `open_embedder`."""
        embedders = [open_embedder(spec_of(name)) for name in self.compared]
        for embedder in embedders:
            embedder.encoder.to(device)
        return embedders
