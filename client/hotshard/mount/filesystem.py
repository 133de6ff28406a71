"""The file system: a request of the kernel in, the payload of its reply out.

`handle` answers from memory, or returns a `Later` that some worker thread runs, because it has to ask the
source. Names, inodes and handles change under one lock, held for microseconds; no source is asked and no
file is read under it. This module knows names and attributes; open files and their bytes are with
`files`.
"""

import errno
from collections.abc import Callable

from hotshard.mount import codec, tree
from hotshard.mount.abi import UNIQUE_RESEND, Fopen, Op
from hotshard.mount.answers import Answer, Later, Payload, Refusal, Task, patiently
from hotshard.mount.codec import FOR_EVER_S, Request
from hotshard.mount.directories import Found
from hotshard.mount.files import Files
from hotshard.mount.handles import Mode
from hotshard.mount.listing import NAME_BYTES_MAX, Kind, Listing
from hotshard.mount.names import Look, NameReader
from hotshard.mount.parts import Parts

_XATTR_PREFIX = b"user.hotshard."
_ABSENT_S = 10.0  # at most, for a name that is not there


class Filesystem:
    """Answers the requests of one mount."""

    def __init__(self, parts: Parts, files: Files) -> None:
        options = parts.plan.options
        self._parts = parts
        self._files = files
        self._inodes = parts.inodes
        self._handles = parts.handles
        self._directories = parts.directories
        self._lock = parts.directories.lock
        self._xattrs = options.xattrs
        self._timeout_s = options.request_timeout_s
        self._list_timeout_s = options.list_timeout_s
        self._absent_s = min(options.ttl_s, _ABSENT_S)
        self._look = Look.of(options, parts.plan.born_ns)
        self._names = NameReader(parts.inodes, self._look, parts.directories.left_s)
        # Directory -> the listing whose names the kernel may have kept.
        self._shown = {
            one.directory: one for one in parts.inodes.kept() if one.pins and not one.current
        }
        self._handlers: dict[int, Callable[[Request, Task], Answer]] = {
            Op.LOOKUP: self._lookup,
            Op.FORGET: self._forget,
            Op.BATCH_FORGET: self._forget,
            Op.GETATTR: self._getattr,
            Op.OPEN: files.open,
            Op.READ: files.read,
            Op.RELEASE: files.release,
            Op.OPENDIR: self._opendir,
            Op.READDIR: self._readdir,
            Op.READDIRPLUS: self._readdir,
            Op.RELEASEDIR: files.release,
            Op.STATFS: self._statfs,
            Op.GETXATTR: self._getxattr,
            Op.LISTXATTR: self._getxattr,
            Op.DESTROY: lambda _request, _task: b"",
        }

    def handle(self, request: Request, task: Task) -> Answer:
        """Answer a request.

        Raises:
            Refusal: with an errno.
        """
        handler = self._handlers.get(request.opcode)
        if handler is None:
            raise Refusal(_REFUSED.get(request.opcode, errno.ENOSYS))
        return handler(request, task)

    def unanswered(self, request: Request, payload: Payload) -> None:
        """The kernel did not want this reply any more (its caller was killed): undo what it told."""
        if request.opcode == Op.LOOKUP:
            node = int.from_bytes(payload[:8], "little")
            if node:
                with self._lock:
                    self._drop(node, 1)
        elif request.opcode in {Op.OPEN, Op.OPENDIR}:
            self._files.close(request.unique & ~UNIQUE_RESEND)

    def _lookup(self, request: Request, _task: Task) -> Answer:
        name: bytes = request.body
        if len(name) > NAME_BYTES_MAX:
            raise Refusal(errno.ENAMETOOLONG)
        with self._lock:
            found = self._directories.find(request.node, name)
            if found is False:
                return Later(self._lookup_later, self._timeout_s)
            return self._tell(found)

    def _lookup_later(self, request: Request, task: Task) -> Payload:
        with self._lock:
            path = self._parts.path(request.node)
        found = patiently(
            task, lambda left_s: self._directories.ask(request.node, path, request.body, left_s)
        )
        with self._lock:
            return self._tell(found)

    def _tell(self, found: Found | bool) -> Payload:  # noqa: FBT001
        if isinstance(found, bool):
            return codec.no_entry_out(self._absent_s)
        listing, index = found
        entry = listing.entry(index)
        node = self._inodes.tell(listing, index, entry.node, listing.lookups(index))
        valid_s = max(0.0, self._directories.left_s(listing))
        attr = self._look.attr(entry)
        if node != entry.node:
            attr = attr._replace(ino=node)
        return codec.entry_out(node, attr, valid_s, FOR_EVER_S)

    def _forget(self, request: Request, _task: Task) -> None:
        with self._lock:
            for node, lookups in request.body:
                self._drop(node, lookups)

    def _drop(self, node: int, lookups: int) -> None:
        if self._inodes.forget(node, lookups):
            self._directories.drop(node)
            self._shown.pop(node, None)

    def _getattr(self, request: Request, _task: Task) -> Answer:
        with self._lock:
            return codec.attr_out(self._look.attr(self._parts.entry(request.node)), FOR_EVER_S)

    def _opendir(self, request: Request, _task: Task) -> Answer:
        with self._lock:
            self._parts.entry(request.node)
            listing = self._directories.fresh(request.node)
            if listing is None:
                return Later(self._opendir_later, self._list_timeout_s)
            return self._open_listing(request, listing)

    def _opendir_later(self, request: Request, task: Task) -> Payload:
        with self._lock:
            path = self._parts.path(request.node)
        patiently(task, lambda left_s: self._directories.load(request.node, path, left_s))
        with self._lock:
            listing = self._directories.current(request.node)
            if listing is None:  # the kernel has forgotten the directory
                raise Refusal(errno.ESTALE)
            return self._open_listing(request, listing)

    def _open_listing(self, request: Request, listing: Listing) -> Payload:
        before = len(self._handles)
        handle = self._parts.record(request.unique, listing.serial, Mode.DIRECTORY)
        flags = self._cache_flags(request.node, listing)
        if len(self._handles) > before:
            self._inodes.pin(listing)
        return codec.open_out(handle.fh, flags)

    def _cache_flags(self, node: int, listing: Listing) -> int:
        """Whether the kernel may keep the names it reads, or has kept.

        What it keeps must be of one listing: a new one is kept when nobody reads the one before any more.
        """
        shown = self._shown.get(node)
        if shown is listing:
            return Fopen.CACHE_DIR | Fopen.KEEP_CACHE
        if shown is not None and shown.pins:
            return 0
        self._shown[node] = listing
        return Fopen.CACHE_DIR

    def _readdir(self, request: Request, _task: Task) -> Answer:
        with self._lock:
            handle = self._handles.get(request.body.fh)
            listing = self._inodes.listing(handle.node) if handle is not None else None
            if listing is None:
                raise Refusal(errno.EBADF)
            plus = request.opcode == Op.READDIRPLUS
            return self._names.read(listing, request.body.offset, request.body.size, plus=plus)

    def _statfs(self, _request: Request, _task: Task) -> Answer:
        with self._lock:
            files, size = self._directories.totals()
        return codec.statfs_out(size=size, files=files, name_bytes_max=NAME_BYTES_MAX)

    def _getxattr(self, request: Request, _task: Task) -> Answer:
        if not self._xattrs:
            raise Refusal(errno.ENOSYS)  # once: the kernel does not ask again
        size, name = request.body
        listing = request.opcode == Op.LISTXATTR
        if not listing and not name.startswith(_XATTR_PREFIX):
            # `ls -l` asks each file for two of others: its label and its access list.
            raise Refusal(errno.ENODATA)
        with self._lock:
            facts = self._facts(request.node)
        if listing:
            value = b"".join(_XATTR_PREFIX + key.encode() + b"\0" for key in facts)
        elif (key := name[len(_XATTR_PREFIX) :].decode("utf-8", "replace")) in facts:
            value = facts[key].encode()
        else:
            raise Refusal(errno.ENODATA)
        payload = codec.xattr_out(value, size)
        if payload is None:
            raise Refusal(errno.ERANGE)
        return payload

    def _facts(self, node: int) -> dict[str, str]:
        entry = self._parts.entry(node)
        facts = {
            "uri": tree.uri_of(self._parts.plan.uri, self._parts.path(node)),
            **self._parts.source.facts(),
        }
        if entry.kind is Kind.FILE:
            content = self._parts.contents.get(node)
            facts["version"] = entry.version
            facts["cached"] = "yes" if content is not None and content.handle.file else "unknown"
        elif (listing := self._directories.fresh(node)) is not None:
            facts["hidden"] = str(listing.hidden)
        return facts


_WRITES = (
    Op.SETATTR, Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.RENAME, Op.LINK, Op.WRITE,
    Op.SETXATTR, Op.REMOVEXATTR, Op.CREATE, Op.FALLOCATE, Op.RENAME2, Op.TMPFILE,
)  # fmt: skip
_REFUSED: dict[int, int] = {
    **dict.fromkeys(_WRITES, errno.EROFS),
    Op.IOCTL: errno.ENOTTY,
    Op.READLINK: errno.EINVAL,
}
