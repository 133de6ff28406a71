"""A directory tree read as a bucket: what is an object in it, and all of them in key order. Blocking.

- Regular files are objects; directories are not, and devices, pipes and sockets do not exist.
- Symbolic links are followed inside the tree and refused where they lead out of it. The check is made on
  what was opened, not on a path, so there is no moment in between.
- Order is that of S3: by the bytes of the full path. A directory sorts as its name with "/", which makes
  a walk in order of those names the order of the keys.
"""

import errno
import itertools
import logging
import os
import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from hotshard.core.errors import NotFound, PermissionDenied
from hotshard.core.objects import ObjectInfo

_log = logging.getLogger(__name__)
_CURSORS_MAX = 4  # listings under way; each may hold the names of a large directory


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a directory of the tree."""

    key: str
    """The absolute path; a directory's ends in "/"."""
    info: ObjectInfo | None
    """None: a directory."""


def version_of(status: os.stat_result) -> str:
    """The version of a file."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def describe(uri: str, status: os.stat_result) -> ObjectInfo:
    """The object that a file is."""
    return ObjectInfo(uri, version_of(status), status.st_size, status.st_mtime_ns)


class Tree:
    """The files below one directory."""

    def __init__(self, root: str) -> None:
        self._root = root  # ends in "/"
        self._real_root = ""

    def locate(self, path: str, uri: str) -> tuple[int, os.stat_result]:
        """A descriptor that names the file (O_PATH: nothing is opened yet) and its status.

        Raises:
            NotFound: there is no regular file.
            PermissionDenied: it lies outside the tree.
            OSError: as the file system says.
        """
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            self._check(status, os.readlink(f"/proc/self/fd/{fd}"), uri)
        except BaseException:
            os.close(fd)
            raise
        return fd, status

    def walk(self, prefix: str, after: str, *, recursive: bool) -> Iterator[Entry]:
        """What begins with `prefix` and comes after the key `after`, in key order.

        Holds the names of one directory per level. What vanishes on the way is left out.

        Raises:
            NotFound: the tree itself is not there.
            OSError: a directory cannot be read; a listing with a hole would be a lie.
        """
        directory, _, start = prefix.rpartition("/")
        levels: list[_Level] = []
        self._descend(levels, directory + "/", start)
        if not levels and not os.path.isdir(self._root):
            raise NotFound(f"no such directory: {self._root}", uri=f"file://{self._root}")
        while levels:
            level = levels[-1]
            name = next(level.names, None)
            if name is None:
                levels.pop()
                continue
            key = level.directory + name
            leads_there = recursive and name.endswith("/") and after.startswith(key)
            if key <= after and not leads_there:
                continue
            if not name.endswith("/"):
                info = self._object(key)
                if info:
                    yield Entry(key, info)
            elif recursive:
                self._descend(levels, key, "")
            elif self._holds(os.path.realpath(key)):
                yield Entry(key, None)

    def _descend(self, levels: list["_Level"], directory: str, start: str) -> None:
        """Add the names of a directory that begin with `start`, unless it is none of this walk's."""
        try:
            fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            status, opened = os.fstat(fd), f"/proc/self/fd/{fd}"
            identity = (status.st_dev, status.st_ino)
            if any(level.identity == identity for level in levels):
                return  # a link that leads back up
            if self._holds(os.readlink(opened)):
                levels.append(_Level(directory, identity, iter(_names(opened, directory, start))))
        finally:
            os.close(fd)

    def _object(self, path: str) -> ObjectInfo | None:
        uri = f"file://{path}"
        try:
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                fd, status = self.locate(path, uri)
                os.close(fd)
        except (NotFound, PermissionDenied):
            return None
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ELOOP}:  # vanished, or a link to nothing
                return None
            raise
        return describe(uri, status) if stat.S_ISREG(status.st_mode) else None

    def _check(self, status: os.stat_result, real_path: str, uri: str) -> None:
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a special file"
            raise NotFound(f"{uri} is {kind}, not an object", uri=uri)
        if not self._holds(real_path):
            raise PermissionDenied(f"{uri} is a link out of {self._root}", uri=uri)

    def _holds(self, real_path: str) -> bool:
        if not self._real_root:  # late: the tree may be mounted after the server has started
            self._real_root = os.path.realpath(self._root).rstrip("/") + "/"
        return f"{real_path}/".startswith(self._real_root)


class Pages:
    """The listing of a tree in pages: remembers where the last few left off."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        # (prefix, recursive, token) -> the walk that goes on after this token
        self._cursors: OrderedDict[tuple[str, bool, str], Iterator[Entry]] = OrderedDict()

    def read(
        self, prefix: str, token: str, size: int, *, recursive: bool
    ) -> tuple[list[Entry], str]:
        """At most `size` entries after `token`, and the token of the next page; empty: this was the last.

        Raises:
            As `Tree.walk`.
        """
        # Popped, so that a generator never runs in two threads; a lost one is rebuilt from the token.
        walk = self._cursors.pop((prefix, recursive, token), None)
        if walk is None:
            walk = self._tree.walk(prefix, token, recursive=recursive)
        entries = list(itertools.islice(walk, size))
        if len(entries) < size:
            return entries, ""
        last = entries[-1].key
        self._cursors[prefix, recursive, last] = walk
        if len(self._cursors) > _CURSORS_MAX:
            self._cursors.popitem(last=False)
        return entries, last

    def clear(self) -> None:
        """Forget every walk."""
        self._cursors.clear()


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory that a walk is in."""

    directory: str
    identity: tuple[int, int]
    names: Iterator[str]
    """Those still to come, in order; a directory's with its "/"."""


def _names(opened: str, directory: str, start: str) -> list[str]:
    names = []
    with os.scandir(opened) as entries:
        for entry in entries:
            if not entry.name.startswith(start):
                continue
            try:
                entry.name.encode()
                names.append(entry.name + "/" if entry.is_dir() else entry.name)
            except UnicodeEncodeError:
                _log.warning("%r in %r is not UTF-8 and cannot be served", entry.name, directory)
            except OSError as error:
                if error.errno != errno.ELOOP:  # a link to itself
                    raise
    names.sort()
    return names
