"""A pipeline that each process opens for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..faces import register_encoder
from ..weights_key import pipeline_key


@dataclass
class PipelineOpener:
    """A pipeline, and how other processes open the same one. A pickled opener holds no pipeline.

    Args:
        open: Opens the pipeline. A function of a module or a `functools.partial` of one, for other processes.
        encoder: Face encoder as the user named it, a file or code, which other processes have to register too.
    """

    open: Callable[[], Any]
    encoder: str | None = None

    @cached_property
    def pipeline(self) -> Any:
        """The pipeline of this process, with an adapter."""
        if self.encoder is not None:
            register_encoder(self.encoder)
        return self.open()

    @cached_property
    def key(self) -> str:
        """What the pictures depend on: a hash of the pipeline's weights and of its settings."""
        return pipeline_key(self.pipeline)

    def __getstate__(self) -> dict[str, Any]:
        return {"open": self.open, "encoder": self.encoder}
