"""quarantine/ of one cache directory: bad files kept for a look at them, the newest few. Blocking."""

import contextlib
import os
from collections import deque

FILES_MAX = 8  # enough to see what is wrong with a disk


class Quarantine:
    """Moves files in and the oldest out. Used by the disk's thread; `bytes` may be read anywhere."""

    def __init__(self, directory: str, bytes_max: int) -> None:
        """Take stock of `directory`; never keep more than `bytes_max` in it.

        Raises:
            OSError: it cannot be listed.
        """
        self._directory = directory
        self._bytes_max = bytes_max
        with os.scandir(directory) as entries:
            found = [
                (entry.stat().st_mtime_ns, entry.name, entry.stat().st_size) for entry in entries
            ]
        self._kept = deque((name, size) for _, name, size in sorted(found))
        self.bytes = sum(size for _, size in self._kept)
        self._make_room(0)

    def take(self, path: str, name: str) -> None:
        """Move a file in; one that is too large to keep is unlinked. A missing file is no error."""
        with contextlib.suppress(FileNotFoundError):
            size = os.stat(path).st_size
            if size > self._bytes_max:
                os.unlink(path)
                return
            self._make_room(size)
            os.rename(path, os.path.join(self._directory, name))
            self._kept.append((name, size))
            self.bytes += size

    def _make_room(self, size: int) -> None:
        while self._kept and (len(self._kept) >= FILES_MAX or self.bytes + size > self._bytes_max):
            name, freed = self._kept.popleft()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, name))
            self.bytes -= freed
