"""Arithmetic of objects, shards and blocks, and the digest that names a shard.

An object of `size` bytes is cut into shards of `shard_bytes` (the last one shorter), a shard into blocks
of `block_bytes` (the last one shorter). Shards and blocks are numbered from 0; an empty object has one
empty shard with no blocks. Ranges are half open: [start, stop).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import xxhash

DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a cluster cuts objects; the same on every member."""

    shard_bytes: int = 256 << 20
    block_bytes: int = 8 << 20

    def __post_init__(self) -> None:
        """Refuse sizes that do not divide."""
        if self.block_bytes <= 0 or self.shard_bytes <= 0 or self.shard_bytes % self.block_bytes:
            raise ValueError(
                f"shard_bytes ({self.shard_bytes}) must be a positive multiple of"
                f" block_bytes ({self.block_bytes})"
            )

    def shard_count(self, size: int) -> int:
        """How many shards an object of `size` bytes has (at least one)."""
        return max(1, -(-size // self.shard_bytes))

    def shard_size(self, size: int, index: int) -> int:
        """Bytes of shard `index` of an object of `size` bytes."""
        return min(self.shard_bytes, size - index * self.shard_bytes)

    def block_count(self, shard_size: int) -> int:
        """How many blocks a shard of `shard_size` bytes has."""
        return -(-shard_size // self.block_bytes)

    def block_size(self, shard_size: int, block: int) -> int:
        """Bytes of block `block` of a shard of `shard_size` bytes."""
        return min(self.block_bytes, shard_size - block * self.block_bytes)

    def blocks(self, start: int, stop: int) -> range:
        """The blocks that [start, stop) of a shard touches."""
        return (
            range(start // self.block_bytes, -(-stop // self.block_bytes))
            if stop > start
            else range(0)
        )

    def pieces(self, size: int, offset: int, length: int) -> Iterator["Piece"]:
        """Cut [offset, offset + length) of an object into one piece per shard, clipped to the object."""
        stop = min(offset + length, size)
        while offset < stop:
            index, start = divmod(offset, self.shard_bytes)
            end = min(self.shard_bytes, stop - index * self.shard_bytes)
            yield Piece(index, start, end)
            offset = index * self.shard_bytes + end


@dataclass(frozen=True, slots=True)
class Piece:
    """[start, stop) inside shard `index`."""

    index: int
    start: int
    stop: int


def runs(bits: int) -> list[range]:
    """The blocks whose bits are set, as runs without a gap, in order."""
    found, at = [], 0
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        length = (~bits & (bits + 1)).bit_length() - 1
        found.append(range(at + skipped, at + skipped + length))
        bits >>= length
        at += skipped + length
    return found


def shard_digest(uri: str, version: str, index: int) -> bytes:
    """The 16 bytes that name a shard, on disk and in placement: xxh3-128 of (uri, version, index).

    NUL separates the parts; no uri or version contains one. Part of the on-disk format: golden vectors
    in the tests say when it changes.
    """
    return xxhash.xxh3_128_digest(f"{uri}\0{version}\0{index}".encode())
