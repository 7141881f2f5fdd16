"""Options of the commands that draw pictures: marks, and people who are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IdgenError, ProvenanceError
from ..inputs import InputPath

if TYPE_CHECKING:
    from PIL import Image

    from .blocklist import IdentityBlocklist
    from .credentials import CredentialSigner
    from .tracing_key import TracingKey


@dataclass(frozen=True, kw_only=True)
class MarkOptions:
    """How pictures are marked, and which people are refused.

    Attributes:
        watermark: Add an invisible watermark to the pixels.
        tracing_key: File written by `idgen key`. The watermark then says that its owner made the picture, and for
            whom; `idgen inspect --tracing-key` reads it.
        recipient: Who gets the pictures, a number from 0 to 255 in the watermark; requires --tracing-key.
        certificates: PEM file with your signing certificate and its chain, to sign pictures with Content Credentials.
        key: PEM file with the certificate's private key.
        blocklist: File written by `idgen blocklist`: people who must not be drawn.
        check_output: Also search the pictures for people on the blocklist. A picture that shows one is not written.
    """

    watermark: bool = True
    tracing_key: InputPath | None = None
    recipient: int = 0
    certificates: InputPath | None = None
    key: InputPath | None = None
    blocklist: InputPath | None = None
    check_output: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """The options without what was read from their files; other processes read them again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def prepare(self, pipeline: Any) -> None:
        """Fail on missing files and packages before drawing, and give the blocklist to the pipeline."""
        if self.watermark:
            from .watermark import require_watermark

            require_watermark()
        _ = self.signer, self.maker
        if self.check_output and self.people is None:
            raise IdgenError("--check-output requires --blocklist.")
        if self.people is not None:  # otherwise the pipeline keeps its own
            pipeline.id_blocklist = self.people

    @cached_property
    def people(self) -> IdentityBlocklist | None:
        """The people who must not be drawn."""
        if self.blocklist is None:
            return None
        from .blocklist import IdentityBlocklist

        return IdentityBlocklist.load(self.blocklist)

    @cached_property
    def maker(self) -> TracingKey | None:
        """The key of the watermark, if it has one."""
        if self.tracing_key is None:
            if self.recipient:
                raise ProvenanceError("--recipient requires --tracing-key.")
            return None
        if not self.watermark:
            raise ProvenanceError("--tracing-key is for the watermark, which --no-watermark disables.")
        from .tracing_key import TracingKey, check_recipient

        check_recipient(self.recipient)
        return TracingKey.load(self.tracing_key)

    @cached_property
    def signer(self) -> CredentialSigner | None:
        """The signer, if pictures are signed."""
        if (self.certificates is None) != (self.key is None):
            raise ProvenanceError("--certificates and --key are required together.")
        if self.certificates is None or self.key is None:
            return None
        from .credentials import CredentialSigner

        return CredentialSigner(self.certificates, self.key)

    def file_of(self, picture: Image.Image, settings: Mapping[str, object]) -> bytes:
        """The marked PNG file; raises BlockedIdentityError if `check_output` finds a person on the blocklist."""
        from .marks import mark

        if self.check_output and self.people is not None:
            self.people.check_picture(picture)
        told = {name: value for name, value in settings.items() if value is not None}
        told |= {name: _public_name(str(told[name])) for name in ("base", "adapter", "lora") if name in told}
        return mark(
            picture, told, watermark=self.watermark, signer=self.signer, key=self.maker, recipient=self.recipient
        )


def _public_name(source: str) -> str:
    """A hub id, or the name of a folder or file without its path, which is private."""
    return Path(source).name if Path(source).exists() else source
