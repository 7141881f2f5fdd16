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
"""Probability that a key reads a recipient from a picture that was not marked with it: 3.27e-4.

It is exact for any picture and a random key. The words are scrambled with secret bits of the key, so what the key sees
is 32 even random bits, and at most one word lies within three bits of them. With `k` keys and `n` pictures the
probability of any false reading is at most `k · n` times as large (union bound). Copies of one picture have equal or
nearly equal bits, so their false readings are not independent.
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
