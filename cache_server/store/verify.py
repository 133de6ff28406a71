"""Does a file hold what its block checksums say? Reads it again, through a small buffer that is reused.

Blocking; the reads and (for large pieces) the checksums release the GIL.
"""

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass

from hotshard.core.checksum import Algorithm, Checksum, checksum, combined, running

BUFFER_BYTES = 1 << 20  # fits the L2 cache, so a byte is checksummed where it was just copied
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Sums:
    """The block checksums of one shard."""

    algorithm: Algorithm
    block_bytes: int
    values: Sequence[int]


def new_buffer() -> memoryview:
    """A page-aligned buffer for `holds`; one per thread at a time."""
    return memoryview(mmap.mmap(-1, BUFFER_BYTES))


def holds(fd: int, size: int, sums: Sums, buffer: memoryview) -> bool:
    """Whether the file is `size` bytes long and every block has its checksum."""
    return all(block_holds(fd, block, size, sums, buffer) for block in range(blocks(size, sums)))


def blocks(size: int, sums: Sums) -> int:
    """How many blocks there are to look at, for a file that should be `size` bytes long: at least one."""
    return max(1, len(sums.values), -(-size // sums.block_bytes))


def block_holds(fd: int, block: int, size: int, sums: Sums, buffer: memoryview) -> bool:
    """Whether the file is `size` bytes long and this block has its checksum."""
    if os.fstat(fd).st_size != size or len(sums.values) != -(-size // sums.block_bytes):
        return False
    if not size:
        return True
    start = block * sums.block_bytes
    stop = min(size, start + sums.block_bytes)
    return _sum_of(fd, start, stop, sums.algorithm, buffer) == sums.values[block]


def agrees(sums: Sums, size: int, whole: Checksum) -> bool:
    """Whether the block checksums amount to the checksum of all the bytes."""
    assert whole.algorithm is sums.algorithm
    if len(sums.values) == 1:
        return sums.values[0] == whole.value
    lengths = (min(sums.block_bytes, size - at) for at in range(0, size, sums.block_bytes))
    parts = zip(sums.values, lengths, strict=True)
    return combined(sums.algorithm, parts) == whole.value


def _sum_of(fd: int, start: int, stop: int, algorithm: Algorithm, buffer: memoryview) -> int | None:
    """The checksum of [start, stop); None: the file ends before.

    Asks for whole pages, as O_DIRECT needs it; what is read beyond `stop` is not looked at.
    """
    if stop - start <= len(buffer):
        pages = -(-(stop - start) // _PAGE) * _PAGE
        count = os.preadv(fd, [buffer[:pages]], start)
        if count >= stop - start:
            return checksum(algorithm, buffer[: stop - start])
    state = running(algorithm)
    while start < stop:
        count = min(os.preadv(fd, [buffer], start), stop - start)
        if count == 0:
            return None
        state.update(buffer[:count])
        start += count
    return state.value()
