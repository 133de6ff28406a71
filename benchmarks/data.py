"""Seeded content, so that every byte a benchmark reads can be checked without keeping a copy.

An object is a sequence of 4 KiB pages. A page holds the same 4,080 random bytes of the data set, led by
16 bytes that name the object and the page: bytes of the wrong object, of the wrong place or of the wrong
data set never pass, and content is made at memory speed, so checking costs no more than the checksum.
"""

import os
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import xxhash

from benchmarks.results import WrongBytes

PAGE = 4096
Bytes = bytes | bytearray | memoryview
_STAMP = struct.Struct("<QQ")
_WRITE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DataSet:
    """`count` objects of `object_bytes` each, all determined by `seed`.

    With a standard deviation, sizes are drawn from a normal distribution around `object_bytes`, cut at a
    quarter of it and at its double.
    """

    seed: int
    count: int
    object_bytes: int
    stdev_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """Of all objects."""
        if not self.stdev_bytes:
            return self.count * self.object_bytes
        return sum(self.size(index) for index in range(self.count))

    def size(self, index: int) -> int:
        """Of one object."""
        if not self.stdev_bytes:
            return self.object_bytes
        drawn = random.Random(f"{self.seed}/{index}").gauss(self.object_bytes, self.stdev_bytes)
        return max(self.object_bytes // 4, min(round(drawn), 2 * self.object_bytes))

    def name(self, index: int) -> str:
        """The object's key, relative to wherever the set is put; in key order."""
        return f"{index // 1000:04d}/{index:07d}.bin"

    def content(self, index: int, offset: int, length: int) -> bytes:
        """[offset, offset + length) of an object, cut at its end."""
        stop = min(offset + length, self.size(index))
        first = offset // PAGE
        pages = -(-stop // PAGE) - first
        body = bytearray(_base(self.seed) * max(0, pages))
        for page in range(pages):
            _STAMP.pack_into(body, page * PAGE, index, first + page)
        return bytes(memoryview(body)[offset - first * PAGE : stop - first * PAGE])

    def pieces(self, index: int) -> Iterator[bytes]:
        """An object's content in pieces of at most 1 MiB."""
        for offset in range(0, self.size(index), _WRITE_BYTES):
            yield self.content(index, offset, _WRITE_BYTES)

    def check(self, index: int, offset: int, length: int, got: Bytes) -> None:
        """Compare the answer to a read of `length` bytes at `offset` with what is there.

        Raises:
            WrongBytes: it differs, or is too short.
        """
        if digest(got) != digest(self.content(index, offset, length)):
            where = f"object {self.name(index)}, {length} bytes at {offset}"
            raise WrongBytes(f"{where}: {len(got)} bytes came that are not what was written")

    def write(self, directory: str) -> None:
        """Put the whole set below a directory."""
        for index in range(self.count):
            path = os.path.join(directory, self.name(index))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.writelines(self.pieces(index))


def digest(data: Bytes) -> int:
    """The checksum bodies are compared by."""
    return xxhash.xxh3_64_intdigest(data)


@lru_cache(maxsize=4)
def _base(seed: int) -> bytes:
    return random.Random(seed).randbytes(PAGE)
