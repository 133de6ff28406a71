"""The file cache of a machine in use: it has nearly all of the memory, and next to nothing is free.

Cold rows fill new pages of it, and where these come from decides what that costs. A virtual machine that
reports free pages gives them back to its host within seconds; the next to use one pays for having it
mapped again, 2 to 3 CPU seconds per GB measured beside 0.2. Only the side that keeps what it reads pays,
now and then. A cache node knows no such pages once its file cache is full, so the rows begin like that.
"""

import os
from typing import Self

_CHUNK_BYTES = 1 << 20
_MEMORIES = 4  # of the machine, the size of the file: what comes round again has been evicted


class FullFileCache:
    """Fills the file cache with the holes of a sparse file: no byte of it comes from a disk."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "holes")
        self._memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self._size = _MEMORIES * self._memory_bytes // _CHUNK_BYTES * _CHUNK_BYTES
        self._at = 0

    def __enter__(self) -> Self:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.ftruncate(self._fd, self._size)
        self.fill(self._memory_bytes)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        os.unlink(self._path)

    def fill(self, size: int) -> None:
        """Have so many bytes of it take the place of what is free, or was used the longest time ago."""
        buffer = bytearray(_CHUNK_BYTES)
        for _ in range(0, size, _CHUNK_BYTES):
            os.preadv(self._fd, [buffer], self._at)
            self._at = (self._at + _CHUNK_BYTES) % self._size
