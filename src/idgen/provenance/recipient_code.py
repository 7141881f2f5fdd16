"""The bits of a watermark that names a recipient: an error-correcting code, scrambled with a tracing key."""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np

from .tracing_key import RECIPIENTS, TracingKey, check_recipient

BITS = 32
GENERATOR = 0o5423325
"""Generator polynomial of the code BCH(31, 11) (Lin and Costello, "Error Control Coding", appendix C)."""

CORRECTED = 3
"""Wrong bits that are corrected. The code could correct five, at 40 times as many false positives."""

FALSE_POSITIVE_RATE = RECIPIENTS * sum(comb(BITS, wrong) for wrong in range(CORRECTED + 1)) / 2**BITS
"""How often a picture without a mark of a key seems to have one: 3.3e-4 for each key that is tried.

This holds for any picture. Words of a key are scrambled with its secret bits, so whatever is read from a picture that
was not marked with this key is like 32 random bits.
"""


def encode_recipient(key: TracingKey, recipient: int) -> np.ndarray:
    """(32,) bits of a watermark; raises ProvenanceError unless the recipient is from 0 to 255."""
    check_recipient(recipient)
    return _words()[recipient] ^ _scrambling(key)


def decode_recipient(key: TracingKey, bits: np.ndarray) -> tuple[int, int] | None:
    """The recipient that a key wrote into the bits of a watermark.

    Args:
        key: Key of the installation.
        bits: (32,), as `read_watermark` gives them.

    Returns:
        The recipient and the number of bits that agree; None if more than three bits differ from every word.
    """
    agreeing = (_words() == (bits ^ _scrambling(key))).sum(1)
    recipient = int(agreeing.argmax())
    return (recipient, int(agreeing[recipient])) if agreeing[recipient] >= BITS - CORRECTED else None


def _scrambling(key: TracingKey) -> np.ndarray:
    return key.bits(BITS, "watermark")


@lru_cache(1)
def _words() -> np.ndarray:
    """(256, 32) words of the code with a parity bit. Any two of them differ in at least 12 bits."""
    words = []
    for message in range(RECIPIENTS):
        word = 0
        for place in range((RECIPIENTS - 1).bit_length()):  # the product of two polynomials over GF(2)
            word ^= (GENERATOR << place) * (message >> place & 1)
        words.append(word << 1 | word.bit_count() & 1)
    return np.unpackbits(np.array(words, ">u4").view(np.uint8).reshape(-1, 4), axis=1)
