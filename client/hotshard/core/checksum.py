"""The checksums hotshard keeps per block, and how S3 writes the same ones.

xxh3 is the default. Where S3 gives a checksum of the whole object, the same CRC is kept per block
instead, because CRCs of neighbouring blocks combine into the CRC of the whole: what arrived is then
compared with what was uploaded, end to end.

The CRCs come from awscrt (hardware speed, releases the GIL), CRC32 from isal: awscrt and zlib compute
that one by table (3 and 6 GB/s against 59), and most uploads by boto3 carry it. Both are imported at the
first CRC, so a client, which meets none, does without them.
"""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from typing import Protocol

import xxhash

Bytes = bytes | bytearray | memoryview


class Algorithm(IntEnum):
    """Numbers are part of the on-disk format."""

    XXH3_64 = 1
    CRC64NVME = 2
    CRC32C = 3
    CRC32 = 4

    @property
    def combines(self) -> bool:
        """Whether checksums of two neighbours give the checksum of both."""
        return self is not Algorithm.XXH3_64


@dataclass(frozen=True, slots=True)
class Checksum:
    """One value under one algorithm; unsigned."""

    algorithm: Algorithm
    value: int


class Running(Protocol):
    """A checksum of bytes that come in pieces."""

    def update(self, data: Bytes) -> None:
        """Add the next bytes."""

    def value(self) -> int:
        """The checksum of all bytes so far."""


class _Xxh3:
    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = xxhash.xxh3_64()

    def update(self, data: Bytes) -> None:
        self._state.update(data)

    def value(self) -> int:
        return self._state.intdigest()


class _Crc:
    __slots__ = ("_function", "_value")

    def __init__(self, function: Callable[[Bytes, int], int]) -> None:
        self._function = function
        self._value = 0

    def update(self, data: Bytes) -> None:
        self._value = self._function(data, self._value)

    def value(self) -> int:
        return self._value


def running(algorithm: Algorithm) -> Running:
    """A fresh running checksum."""
    if algorithm is Algorithm.XXH3_64:
        return _Xxh3()
    return _Crc(_crc_function(algorithm))


def checksum(algorithm: Algorithm, data: Bytes) -> int:
    """The checksum of `data` in one go."""
    if algorithm is Algorithm.XXH3_64:
        return xxhash.xxh3_64_intdigest(data)
    return _crc_function(algorithm)(data, 0)


def combined(algorithm: Algorithm, parts: Iterable[tuple[int, int]]) -> int:
    """The CRC of a whole from (value, byte count) of its parts in order."""
    combine = _combine_function(algorithm)
    total = 0
    for value, length in parts:
        total = combine(total, value, length)
    return total


# The S3 response headers that carry a full-object checksum, best first.
S3_HEADERS: dict[str, Algorithm] = {
    "x-amz-checksum-crc64nvme": Algorithm.CRC64NVME,
    "x-amz-checksum-crc32c": Algorithm.CRC32C,
    "x-amz-checksum-crc32": Algorithm.CRC32,
}


def from_s3(algorithm: Algorithm, text: str) -> Checksum | None:
    """Read S3's base64 form; None for a composite value ("...-3"), which no ranged reader can check."""
    if "-" in text:
        return None
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    width = 8 if algorithm is Algorithm.CRC64NVME else 4
    return Checksum(algorithm, int.from_bytes(raw, "big")) if len(raw) == width else None


@cache
def _crc_function(algorithm: Algorithm) -> Callable[[Bytes, int], int]:
    from awscrt import checksums
    from isal import isal_zlib

    functions: dict[Algorithm, Callable[[Bytes, int], int]] = {
        Algorithm.CRC64NVME: checksums.crc64nvme,
        Algorithm.CRC32C: checksums.crc32c,
        Algorithm.CRC32: isal_zlib.crc32,
    }
    return functions[algorithm]


@cache
def _combine_function(algorithm: Algorithm) -> Callable[[int, int, int], int]:
    from awscrt import checksums

    functions: dict[Algorithm, Callable[[int, int, int], int]] = {
        Algorithm.CRC64NVME: checksums.combine_crc64nvme,
        Algorithm.CRC32C: checksums.combine_crc32c,
        Algorithm.CRC32: checksums.combine_crc32,
    }
    return functions[algorithm]
