"""`mark`: all marks of a generated picture, as the command line and the demo add them."""

from __future__ import annotations

from collections.abc import Mapping

from PIL import Image

from .. import __version__
from .credentials import CredentialSigner
from .metadata import write_png
from .tracing_key import TracingKey
from .watermark import add_watermark


def mark(
    image: Image.Image,
    settings: Mapping[str, object],
    *,
    watermark: bool = True,
    signer: CredentialSigner | None = None,
    key: TracingKey | None = None,
    recipient: int = 0,
) -> bytes:
    """A PNG file of a generated picture with its settings, a watermark and a signature.

    Args:
        image: Picture that the pipeline drew.
        settings: Settings of the generation (base, adapter, prompt, seed, …), with values as `write_png` takes them.
            The program and its version are added. Do not add names of people or paths of photos: files are shared.
        watermark: Add an invisible watermark to the pixels.
        signer: Signs the file with Content Credentials.
        key: If given, the watermark says whose picture it is; see `add_watermark`.
        recipient: A number from 0 to 255 in the watermark.

    Raises:
        MissingDependencyError: `watermark` is set and `idgen-diffusers[provenance]` is not installed.
        ProvenanceError: A setting has a type that `write_png` refuses, or the picture cannot be signed.
    """
    settings = {"generator": f"idgen {__version__}", **settings}
    png = write_png(add_watermark(image, key, recipient) if watermark else image, settings)
    return png if signer is None else signer.sign(png, settings)
