"""The file system: a request of the kernel in, the payload of its reply out.

`handle` answers from memory, or returns a `Later` that some worker thread runs, because it has to ask the source. It
raises `Refusal` with an errno; nothing else decides errnos. Names, inodes and handles change under one lock, held for
microseconds; no source is asked and no file is read under it.

Reads: an inode is one version of one object. A sealed object that is one file goes to the kernel as the backing file
of a passthrough open. Everything else is read here, into the page cache of the mount, which keeps it: it cannot become
wrong. While any handle of an inode is open, further opens follow its mode (see `handles`).
"""

import errno
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from hotshard.core.errors import HotshardError, Overloaded, ServerUnavailable, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.mount import codec, device, tree
from hotshard.mount.abi import UNIQUE_RESEND, Fopen, Op
from hotshard.mount.codec import FOR_EVER_S, Request
from hotshard.mount.config import Plan
from hotshard.mount.contents import Content, Contents
from hotshard.mount.directories import Directories, Found
from hotshard.mount.handles import Handle, HandleTable, Mode, TooManyOpen
from hotshard.mount.inodes import InodeTable
from hotshard.mount.listing import NAME_BYTES_MAX, Entry, Kind, Listing
from hotshard.mount.metrics import Tally
from hotshard.mount.names import Look, NameReader
from hotshard.mount.session import Agreement
from hotshard.mount.source import Source

log = logging.getLogger(__name__)

HEAD_BYTES = 1 << 20  # what an open has fetched, of an object that is not here yet
RETRY_S = 0.2
_ERRNOS = frozenset({errno.ENOENT, errno.EACCES, errno.ESTALE, errno.EINVAL, errno.EIO})
_OPENED = {mode: ("hotshard_mount_opens_total", "mode", mode.name.lower()) for mode in Mode}
_XATTR_PREFIX = b"user.hotshard."

Payload = bytes | memoryview
T = TypeVar("T")


class Refusal(Exception):
    """The answer to a request is an errno."""

    def __init__(self, code: int) -> None:
        super().__init__(os.strerror(code))
        self.errno = code


class Task(NamedTuple):
    """What a handler has to work with besides the request."""

    buffer: memoryview
    """Room for the largest read."""
    tally: Tally
    deadline_s: float
    """When a worker has to have an answer; nobody waits for it later."""


class Later(NamedTuple):
    """The answer needs the source: run this on a worker."""

    run: Callable[[Request, Task], Payload]
    timeout_s: float


Answer = Payload | Later | None
"""None: this request has no reply."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a file system is made of."""

    plan: Plan
    source: Source
    inodes: InodeTable
    handles: HandleTable
    directories: Directories
    contents: Contents


class Filesystem:
    """Answers the requests of one mount."""

    def __init__(self, parts: Parts, device_fd: int, agreement: Agreement) -> None:
        options = parts.plan.options
        self._plan = parts.plan
        self._source = parts.source
        self._inodes = parts.inodes
        self._handles = parts.handles
        self._directories = parts.directories
        self._contents = parts.contents
        self._lock = parts.directories.lock
        self._fd = device_fd
        self._agreement = agreement
        self.passthrough = agreement.passthrough and options.mode == "auto"
        self._timeout_s = options.request_timeout_s
        self._list_timeout_s = options.list_timeout_s
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
            Op.OPEN: self._open,
            Op.READ: self._read,
            Op.RELEASE: self._release,
            Op.OPENDIR: self._opendir,
            Op.READDIR: self._readdir,
            Op.READDIRPLUS: self._readdir,
            Op.RELEASEDIR: self._release,
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
            self._close(request.unique & ~UNIQUE_RESEND)

    # -- names ----------------------------------------------------------------------------------

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
            path = self._path(request.node)
        found = self._patiently(
            task, lambda left_s: self._directories.ask(request.node, path, request.body, left_s)
        )
        with self._lock:
            return self._tell(found)

    def _tell(self, found: Found | bool) -> Payload:  # noqa: FBT001
        if isinstance(found, bool):
            return codec.no_entry_out(min(self._plan.options.ttl_s, 10.0))
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
            return codec.attr_out(self._look.attr(self._entry(request.node)), FOR_EVER_S)

    def _opendir(self, request: Request, _task: Task) -> Answer:
        with self._lock:
            self._entry(request.node)
            listing = self._directories.fresh(request.node)
            if listing is None:
                return Later(self._opendir_later, self._list_timeout_s)
            return self._open_listing(request, listing.serial)

    def _opendir_later(self, request: Request, task: Task) -> Payload:
        with self._lock:
            path = self._path(request.node)
        listing = self._patiently(
            task, lambda left_s: self._directories.load(request.node, path, left_s)
        )
        with self._lock:
            return self._open_listing(request, listing.serial)

    def _open_listing(self, request: Request, serial: int) -> Payload:
        listing = self._inodes.listing(serial)
        if listing is None:  # replaced and dropped between two of our locks
            raise Refusal(errno.EAGAIN)
        before = len(self._handles)
        handle = self._record(request, serial, Mode.DIRECTORY)
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

    # -- files ----------------------------------------------------------------------------------

    def _open(self, request: Request, task: Task) -> Answer:
        if request.body.flags & os.O_ACCMODE != os.O_RDONLY:
            raise Refusal(errno.EROFS)
        if self._agreement.no_open:
            raise Refusal(errno.ENOSYS)
        node = request.node
        content = self._contents.get(node)
        with self._lock:
            settled = self._handles.mode_of(node)
            if settled is None and not self._leased(content) and self._entry(node).size:
                return Later(self._open_later, self._timeout_s)
            return self._open_as(request, task, content, settled)

    def _open_later(self, request: Request, task: Task) -> Payload:
        info = self._info(request.node)
        content = self._fetch(request.node, info, 0, HEAD_BYTES, task)
        with self._lock:
            return self._open_as(request, task, content, self._handles.mode_of(request.node))

    def _open_as(
        self,
        request: Request,
        task: Task,
        content: Content | None,
        settled: tuple[Mode, int] | None,
    ) -> Payload:
        """Settle the mode of an open, unless earlier opens have; locked."""
        node = request.node
        if settled is not None:
            mode, backing_id = settled
        else:
            backing_id = self._backing(content) if content is not None else 0
            mode = Mode.PASSTHROUGH if backing_id else Mode.CACHED
        try:
            handle = self._record(request, node, mode, backing_id)
        except Refusal:
            if settled is None and backing_id:
                device.backing_close(self._fd, backing_id)
            raise
        task.tally.add(_OPENED[mode])
        if handle.mode is Mode.PASSTHROUGH:
            flags = Fopen.PASSTHROUGH | Fopen.NOFLUSH
            return codec.open_out(handle.fh, flags, handle.backing_id)
        return codec.open_out(handle.fh, Fopen.KEEP_CACHE | Fopen.NOFLUSH)

    def _backing(self, content: Content) -> int:
        file = content.whole()
        if not self.passthrough or file is None:
            return 0
        try:
            return device.backing_open(self._fd, file.fd)
        except OSError as error:
            # No privilege, or a file system that cannot: cached mode serves as well, only slower.
            self.passthrough = False
            log.warning("no passthrough: %s", error.strerror)
            return 0

    def _release(self, request: Request, _task: Task) -> Answer:
        self._close(request.body.fh)
        return b""

    def _close(self, fh: int) -> None:
        with self._lock:
            handle = self._handles.close(fh)
            if handle is None:
                return
            if handle.mode is Mode.DIRECTORY:
                listing = self._inodes.listing(handle.node)
                if listing is not None:
                    self._inodes.unpin(listing)
            elif handle.mode is Mode.PASSTHROUGH and self._handles.mode_of(handle.node) is None:
                device.backing_close(self._fd, handle.backing_id)

    def _read(self, request: Request, task: Task) -> Answer:
        body = request.body
        content = self._contents.get(request.node)
        if content is not None:
            count = content.read_into(task.buffer[: body.size], body.offset)
            if count >= 0:
                return task.buffer[:count]
        return Later(self._read_later, self._timeout_s)

    def _read_later(self, request: Request, task: Task) -> Payload:
        body = request.body
        info = self._info(request.node)
        offset, stop = body.offset, min(body.offset + body.size, info.size)
        while True:
            content = self._fetch(request.node, info, offset, stop - offset, task)
            count = content.read_into(task.buffer[: body.size], body.offset)
            if count >= 0:
                return task.buffer[:count]
            # The source gave a part: what comes after it is asked for next.
            piece = content.handle.find(offset)
            if piece is None or piece.stop <= offset:
                raise Refusal(errno.EIO)
            offset = min(piece.stop, stop - 1)

    def _fetch(self, node: int, info: ObjectInfo, offset: int, length: int, task: Task) -> Content:
        wanted = min(length, info.size - offset)
        try:
            opened = self._patiently(
                task, lambda left_s: self._source.open(info, offset, wanted, left_s)
            )
        except Refusal as refusal:
            if refusal.errno == errno.ESTALE:
                self._doubt(node)
            raise
        return self._contents.learn(node, info, opened, time.monotonic())

    # -- the rest -------------------------------------------------------------------------------

    def _statfs(self, _request: Request, _task: Task) -> Answer:
        with self._lock:
            files, size = self._directories.totals()
        return codec.statfs_out(size=size, files=files, name_bytes_max=NAME_BYTES_MAX)

    def _getxattr(self, request: Request, _task: Task) -> Answer:
        size, name = request.body
        with self._lock:
            facts = self._facts(request.node)
        if request.opcode == Op.LISTXATTR:
            value = b"".join(_XATTR_PREFIX + key.encode() + b"\0" for key in facts)
        elif (
            name.startswith(_XATTR_PREFIX)
            and (key := name[14:].decode("utf-8", "replace")) in facts
        ):
            value = facts[key].encode()
        else:
            raise Refusal(errno.ENODATA)
        payload = codec.xattr_out(value, size)
        if payload is None:
            raise Refusal(errno.ERANGE)
        return payload

    def _facts(self, node: int) -> dict[str, str]:
        entry = self._entry(node)
        facts = {"uri": tree.uri_of(self._plan.uri, self._path(node)), **self._source.facts()}
        if entry.kind is Kind.FILE:
            content = self._contents.get(node)
            facts["version"] = entry.version
            facts["cached"] = "yes" if content is not None and content.handle.file else "unknown"
        elif (listing := self._directories.fresh(node)) is not None:
            facts["hidden"] = str(listing.hidden)
        return facts

    def _entry(self, node: int) -> Entry:
        entry = self._inodes.entry(node)
        if entry is None:
            raise Refusal(errno.ESTALE)
        return entry

    def _path(self, node: int) -> bytes:
        path = self._inodes.path(node)
        if path is None:
            raise Refusal(errno.ESTALE)
        return path

    def _info(self, node: int) -> ObjectInfo:
        with self._lock:
            entry, path = self._entry(node), self._path(node)
        uri = tree.uri_of(self._plan.uri, path)
        return ObjectInfo(uri, entry.version, entry.size, entry.mtime_ns)

    def _doubt(self, node: int) -> None:
        """This version is gone: the next lookup of its name asks, whatever the listing says."""
        with self._lock:
            place = self._inodes.place(node)
            if place is not None:
                self._directories.doubt(*place)

    def _leased(self, content: Content | None) -> bool:
        return content is not None and time.monotonic() < content.lease_until_s

    def _record(self, request: Request, node: int, mode: Mode, backing_id: int = 0) -> Handle:
        try:
            return self._handles.open(request.unique, node, mode, backing_id)
        except TooManyOpen as error:
            raise Refusal(errno.ENFILE) from error

    def _patiently(self, task: Task, ask: Callable[[float], T]) -> T:
        """What the source says, asked again until the deadline while it is away or overloaded."""
        while True:
            left_s = task.deadline_s - time.monotonic()
            try:
                return ask(max(0.1, left_s))
            except (ServerUnavailable, Overloaded) as error:
                pause_s = max(RETRY_S, getattr(error, "retry_after_s", 0.0))
                if pause_s >= left_s:
                    raise Refusal(errno.EIO) from error
                time.sleep(pause_s)
            except StaleObject as error:
                raise Refusal(errno.ESTALE) from error
            except HotshardError as error:
                code = error.errno if error.errno in _ERRNOS else errno.EIO
                if code == errno.EIO:
                    log.warning("%s", error)
                raise Refusal(code or errno.EIO) from error


_REFUSED = {
    op: errno.EROFS
    for op in (Op.SETATTR, Op.SYMLINK, Op.MKNOD, Op.MKDIR, Op.UNLINK, Op.RMDIR, Op.RENAME, Op.LINK,
               Op.WRITE, Op.SETXATTR, Op.REMOVEXATTR, Op.CREATE, Op.FALLOCATE, Op.RENAME2, Op.TMPFILE)
} | {Op.IOCTL: errno.ENOTTY, Op.READLINK: errno.EINVAL}  # fmt: skip
