"""Seeded content, and checks of what was read against it."""

import hashlib
import random
from functools import cache


def content(size: int, seed: int = 1) -> bytes:
    """`size` pseudo-random bytes; the same for the same seed."""
    pattern = _pattern(seed)
    whole, rest = divmod(size, len(pattern))
    if not whole:
        return pattern[:rest]
    # Stamped every MiB, so that a piece in the wrong place shows.
    parts = [i.to_bytes(8, "little") + pattern[8:] for i in range(whole)]
    return b"".join(parts) + pattern[:rest]


@cache
def _pattern(seed: int) -> bytes:
    return random.Random(seed).randbytes(1 << 20)


def digest(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
