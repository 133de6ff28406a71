"""Where a mount gets names and bytes from: the narrow interface, and a local directory behind it.

A source is used by many threads at once. A call blocks for a bounded time, and raises only HotshardError.
`DirectorySource` needs no server: it is for trying out a mount, and the tests' second implementation.
"""

import os
import stat
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hotshard.calls import Opened, Piece
from hotshard.core.errors import InvalidRequest, NotFound, OriginUnavailable, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile

PAGE_ENTRIES = 5000


@dataclass(frozen=True, slots=True)
class Names:
    """One page of the listing of a directory."""

    objects: Sequence[ObjectInfo]
    prefixes: Sequence[str]
    """Uris that end in "/"."""
    next_token: str
    """Empty: this was the last page."""


class Source(Protocol):
    """What a mount needs of a cache server."""

    def stat(self, uri: str) -> ObjectInfo:
        """Describe the current version of an object."""

    def names(self, prefix: str, token: str, page_size: int) -> Names:
        """A page of what lies right below `prefix` (it ends in "/"); page size 0: the source chooses."""

    def open(self, info: ObjectInfo, offset: int, length: int) -> Opened:
        """The bytes of a range of exactly that version, as open files; more pieces may come along.

        Raises:
            StaleObject: it cannot be had any more.
        """

    def facts(self) -> dict[str, str]:
        """What to tell of the source in extended attributes, at no cost."""

    def figures(self) -> dict[str, float]:
        """Metrics of the source: name -> value, at no cost."""

    def close(self) -> None:
        """Give up connections; idempotent."""


class DirectorySource:
    """A local directory. `prefix` is its uri; hidden from nobody, changed by nobody but its owner."""

    def __init__(self, root: str, prefix: str, lease_s: float = 60.0) -> None:
        self._root = root.rstrip("/") + "/"
        self._prefix = prefix
        self._lease_s = lease_s

    def stat(self, uri: str) -> ObjectInfo:
        """Describe a file."""
        try:
            return self._info(uri, os.stat(self._path(uri)))
        except OSError as error:
            raise self._translate(error, uri) from error

    def names(self, prefix: str, token: str, page_size: int) -> Names:
        """A page of a directory."""
        try:
            entries = sorted(os.scandir(self._path(prefix)), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return Names((), (), "")
        except OSError as error:
            raise self._translate(error, prefix) from error
        start = bisect_right(entries, token, key=lambda entry: entry.name) if token else 0
        page = entries[start : start + (page_size or PAGE_ENTRIES)]
        more = start + len(page) < len(entries)
        objects = [self._info(prefix + e.name, e.stat()) for e in page if e.is_file()]
        folds = [f"{prefix}{e.name}/" for e in page if e.is_dir()]
        return Names(objects, folds, page[-1].name if more else "")

    def open(self, info: ObjectInfo, offset: int, length: int) -> Opened:  # noqa: ARG002
        """The whole file, whatever the range."""
        try:
            file = OpenFile(os.open(self._path(info.uri), os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise self._translate(error, info.uri) from error
        now = self._info(info.uri, os.fstat(file.fd))
        if now.version != info.version:
            raise StaleObject(f"{info.uri} has changed", uri=info.uri)
        return Opened(info, [Piece(0, info.size, file, 0, sealed=True)], self._lease_s)

    def facts(self) -> dict[str, str]:
        """The directory."""
        return {"owner": "local directory"}

    def figures(self) -> dict[str, float]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing is kept."""

    def _path(self, uri: str) -> str:
        return self._root + uri.removeprefix(self._prefix)

    def _info(self, uri: str, found: os.stat_result) -> ObjectInfo:
        if not stat.S_ISREG(found.st_mode):
            raise NotFound(f"{uri} is no file", uri=uri)
        version = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
        return ObjectInfo(uri, version, found.st_size, found.st_mtime_ns)

    def _translate(self, error: OSError, uri: str) -> Exception:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return NotFound(f"there is no {uri}", uri=uri)
        if isinstance(error, ValueError):
            return InvalidRequest(str(error), uri=uri)
        return OriginUnavailable(f"{uri}: {error.strerror}", uri=uri)
