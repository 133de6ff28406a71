"""Files of a POSIX origin, where this process sees the same tree as the server does.

A version is made as the server makes it, and compared before and after the bytes are copied.
"""

import errno
import os

from hotshard.calls import Page, Prefix
from hotshard.core.errors import (
    HotshardError,
    NotFound,
    OriginUnavailable,
    PermissionDenied,
    StaleObject,
)
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import Address, parse
from hotshard.direct.origin import NotHere
from hotshard.posix_tree import Pages, Tree, describe, version_of

PAGE_ENTRIES = 5000
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_DENIED = {errno.EACCES, errno.EPERM}


class PosixFiles:
    """The files below `root`, a directory that ends in "/"."""

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._tree = Tree(root)
        self._pages = Pages(self._tree)

    def stat(self, address: Address) -> ObjectInfo:
        """Describe a file."""
        try:
            fd, status = self._tree.locate(address.key, address.uri)
        except OSError as error:
            raise self._failure(error, address) from error
        os.close(fd)
        return describe(address.uri, status)

    def page(self, prefix: Address, token: str, page_size: int, *, recursive: bool) -> Page:
        """A page of what begins with `prefix`."""
        size = page_size or PAGE_ENTRIES
        try:
            entries, token = self._pages.read(prefix.key, token, size, recursive=recursive)
        except OSError as error:
            raise self._failure(error, prefix) from error
        if not entries:
            self._check_visible(prefix)
        return Page(
            [entry.info for entry in entries if entry.info],
            [Prefix(f"file://{entry.key}") for entry in entries if not entry.info],
            token,
        )

    def read_into(self, info: ObjectInfo, offset: int, view: memoryview) -> None:
        """Copy a range of exactly that version."""
        address = parse(info.uri)
        try:
            named, status = self._tree.locate(address.key, info.uri)
            try:
                if version_of(status) != info.version:
                    raise _stale(info)
                file = os.open(f"/proc/self/fd/{named}", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.close(named)
            try:
                done = 0
                while done < len(view):
                    count = os.preadv(file, (view[done:],), offset + done)
                    if not count:
                        raise _stale(info)  # cut off meanwhile
                    done += count
                if version_of(os.fstat(file)) != info.version:
                    raise _stale(info)
            finally:
                os.close(file)
        except NotFound as error:
            raise _stale(info) from error
        except OSError as error:
            failure = self._failure(error, address)
            raise (_stale(info) if isinstance(failure, NotFound) else failure) from error

    def _failure(self, error: OSError, address: Address) -> HotshardError:
        if isinstance(error, HotshardError):
            return error
        if error.errno in _MISSING:
            self._check_visible(address)
            return NotFound(f"no such file: {address}", uri=address.uri)
        if error.errno in _DENIED:
            return PermissionDenied(
                f"uid {os.geteuid()} may not read {address} ({error.strerror})", uri=address.uri
            )
        return OriginUnavailable(f"{address}: {error.strerror or error}", uri=address.uri)

    def _check_visible(self, address: Address) -> None:
        """Tell a name that is not there from a tree that is not mounted in this container.

        Something must be seen of the tree: its root holds something, or where the root is not known, the
        nearest directory above the name does, and it is the name's own or not right below "/".

        Raises:
            NotHere: it is the tree that is missing.
        """
        own = directory = self._root if self._root != "/" else os.path.dirname(address.key)
        while not os.path.isdir(directory) and self._root == "/":
            directory = os.path.dirname(directory)
        deep = directory.count("/") > 1
        try:
            with os.scandir(directory) as entries:
                if next(entries, None) is not None and (directory == own or deep):
                    return
        except OSError:
            pass
        raise NotHere(f"{own} is not visible to this process", uri=address.uri)


def _stale(info: ObjectInfo) -> StaleObject:
    return StaleObject(f"{info.uri} changed at the origin", uri=info.uri)
