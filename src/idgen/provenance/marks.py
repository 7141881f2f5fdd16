"""`mark`: the one door through which pictures leave the command line and the demo."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from .. import __version__
from .credentials import CredentialSigner
from .metadata import write_png
from .watermark import add_watermark


def mark(
    image: Image.Image, settings: Mapping[str, Any], *, watermark: bool = True, signer: CredentialSigner | None = None
) -> bytes:
    """A PNG file that says that, and with what, it was drawn.

    Args:
        image: What the pipeline drew.
        settings: What it was drawn with (base, adapter, prompt, seed, …); see `write_png` for what a value may be. The
            program and its version are added. Leave names of people and paths of photos out: the file travels.
        watermark: Whether the pixels are marked too, invisibly.
        signer: Signs it with Content Credentials.

    Raises:
        MissingDependencyError: `idgen-diffusers[provenance]` is not installed and a watermark is wanted.
        ProvenanceError: A setting is neither text, number nor switch, or the picture cannot be signed.
    """
    settings = {"generator": f"idgen {__version__}", **settings}
    png = write_png(add_watermark(image) if watermark else image, settings)
    return png if signer is None else signer.sign(png, settings)
