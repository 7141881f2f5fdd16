"""`TracingKey`: the secret that watermarks with a recipient, and fingerprints of adapters, are made and read with."""

from __future__ import annotations

import hashlib
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from ..errors import ProvenanceError
from ..files import file_size, unwritten

BYTES = 32
MAX_BYTES = 4096
RECIPIENTS = 256
"""Recipients of a key: numbers from 0 to 255."""


@dataclass(frozen=True)
class TracingKey:
    """A secret of one installation or publisher. Without it, nobody can read its marks or make them.

    Attributes:
        secret: At least 16 random bytes.

    Raises:
        ProvenanceError: It is shorter.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < 16:
            raise ProvenanceError(f"A tracing key needs at least 16 bytes, got {len(self.secret)}.")

    @classmethod
    def new(cls) -> Self:
        """A new random key."""
        return cls(secrets.token_bytes(BYTES))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file that `save` wrote, or any file of 16 to 4,096 secret bytes.

        Raises:
            ProvenanceError: It cannot be read, or has another size.
        """
        file_size(path, MAX_BYTES, ProvenanceError)
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise ProvenanceError(f"'{os.fspath(path)}' cannot be read: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a new file that only its owner may read; raises ProvenanceError if there is one already."""
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(self.secret)
        except FileExistsError as error:
            raise ProvenanceError(
                f"'{os.fspath(path)}' exists. A key cannot be restored: choose another name."
            ) from error
        except OSError as error:
            raise ProvenanceError(unwritten(path, error)) from error

    def bits(self, count: int, *purpose: object) -> np.ndarray:
        """(count,) pseudo-random bits, uint8. Another key or purpose gives independent ones.

        They are the output of SHAKE-256 (FIPS 202) of key and purpose.

        Args:
            count: Number of bits.
            purpose: What they are for, such as `"watermark"`.
        """
        parts = [self.secret, *(str(part).encode() for part in purpose)]
        absorbed = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        stream = hashlib.shake_256(absorbed).digest((count + 7) // 8)
        return np.unpackbits(np.frombuffer(stream, np.uint8), count=count)


def check_recipient(recipient: int) -> None:
    """Raise ProvenanceError unless the number is from 0 to 255."""
    if not 0 <= recipient < RECIPIENTS:
        raise ProvenanceError(f"A recipient is a number from 0 to {RECIPIENTS - 1}, got {recipient}.")
