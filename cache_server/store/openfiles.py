"""Read-only descriptors of sealed shards, kept open: what the local socket hands out without a system call.

Least recently used ones are let go. Only checked shards come in, and a shard that leaves the index leaves
here in the same turn of the event loop, so what is in here may be served.
"""

import resource
from collections import OrderedDict

from hotshard.openfile import OpenFile

_OPEN_FILES_MAX = 65_536


class OpenFiles:
    """Descriptors by digest. Event loop only."""

    def __init__(self, count_max: int) -> None:
        """Keep at most `count_max`; 0: half of what the process may open, at most 65,536."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # RLIM_INFINITY is -1.
        default = min(soft // 2, _OPEN_FILES_MAX) if soft > 0 else _OPEN_FILES_MAX
        self._count_max = count_max or default
        self._files: OrderedDict[bytes, OpenFile] = OrderedDict()

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._files

    def get(self, digest: bytes) -> OpenFile | None:
        """A descriptor that is at hand."""
        file = self._files.get(digest)
        if file is not None:
            self._files.move_to_end(digest)
        return file

    def put(self, digest: bytes, file: OpenFile) -> None:
        """Keep one."""
        self._files[digest] = file
        self._files.move_to_end(digest)
        if len(self._files) > self._count_max:
            self._files.popitem(last=False)

    def pop(self, digest: bytes) -> OpenFile | None:
        """Let one go."""
        return self._files.pop(digest, None)

    def digests(self) -> list[bytes]:
        """Which are open."""
        return list(self._files)

    def halve(self) -> None:
        """Let the older half go: the process has run out of descriptors."""
        for _ in range(-(-len(self._files) // 2)):
            self._files.popitem(last=False)
