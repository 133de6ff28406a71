"""Open files and reads of a mount: which mode an open gets, where the bytes come from.

An inode is one version of one object. A sealed object that is one file goes to the kernel as the backing
file of a passthrough open. Everything else is read here, into the page cache of the mount, which keeps
it: it cannot become wrong. While any handle of an inode is open, further opens follow its mode (see
`handles`). A backing id is kept as long as the content it belongs to: an open is then one request and no
further system call.
"""

import contextlib
import errno
import logging
import os
import time

from hotshard.calls import Opened
from hotshard.core.objects import ObjectInfo
from hotshard.mount import codec, device
from hotshard.mount.abi import Fopen
from hotshard.mount.answers import Answer, Later, Payload, Refusal, Task, patiently
from hotshard.mount.codec import Request
from hotshard.mount.contents import Content, read_some
from hotshard.mount.handles import Mode, TooManyOpen
from hotshard.mount.parts import Parts
from hotshard.mount.pool import Pool
from hotshard.mount.session import Agreement

log = logging.getLogger(__name__)

HEAD_BYTES = 1 << 20  # what an open has fetched, of an object that is not here yet
_OPENED = {mode: ("hotshard_mount_opens_total", "mode", mode.name.lower()) for mode in Mode}


class Files:
    """Answers OPEN, READ and RELEASE."""

    def __init__(self, parts: Parts, device_fd: int, agreement: Agreement) -> None:
        options = parts.plan.options
        self._parts = parts
        self._lock = parts.directories.lock
        self._fd = device_fd
        self._no_open = agreement.no_open
        self._timeout_s = options.request_timeout_s
        self.passthrough = agreement.passthrough and options.mode == "passthrough"
        """Whether opens may be passed through; turned off when the kernel refuses the first."""
        self._notices = Pool(
            1
        )  # a notice waits for whoever uses the directory, so nobody waits for it
        parts.contents.dropped = self._let_go
        for node in parts.handles.kept():  # by a reader that died, whose contents died with it
            self._let_go(node)

    def open(self, request: Request, task: Task) -> Answer:
        """OPEN."""
        if request.body.flags & os.O_ACCMODE != os.O_RDONLY:
            raise Refusal(errno.EROFS)
        if self._no_open:
            raise Refusal(errno.ENOSYS)
        node = request.node
        content = self._parts.contents.get(node)
        with self._lock:
            settled = self._parts.handles.mode_of(node)
            if not _leased(content) and self._parts.entry(node).size:
                return Later(self._open_later, self._timeout_s)
            self._parts.contents.used(node)
            return self._open_as(request, task, content, settled)

    def _open_later(self, request: Request, task: Task) -> Payload:
        with self._lock:
            info = self._parts.info(request.node)
        _, content = self._fetch(request.node, info, 0, HEAD_BYTES, task)
        self._let_go(request.node)  # the cached file may be another one now, the old one unlinked
        with self._lock:
            settled = self._parts.handles.mode_of(request.node)
            return self._open_as(request, task, content, settled)

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
            backing_id = self._backing(node, content) if content is not None else 0
            mode = Mode.PASSTHROUGH if backing_id else Mode.CACHED
        handle = self._parts.record(request.unique, node, mode, backing_id)
        task.tally.add(_OPENED[mode])
        if handle.mode is Mode.PASSTHROUGH:
            flags = Fopen.PASSTHROUGH | Fopen.NOFLUSH
            return codec.open_out(handle.fh, flags, handle.backing_id)
        return codec.open_out(handle.fh, Fopen.KEEP_CACHE | Fopen.NOFLUSH)

    def _backing(self, node: int, content: Content) -> int:
        """A backing id for an inode, kept until its content is dropped; 0: it cannot be; locked."""
        file = content.whole()
        if not self.passthrough or file is None:
            return 0
        try:
            backing_id = device.backing_open(self._fd, file.fd)
        except OSError as error:
            # No privilege, or a file system that cannot: cached mode serves as well, only slower.
            self.passthrough = False
            log.warning("no passthrough: %s", error.strerror)
            return 0
        try:
            self._parts.handles.keep(node, backing_id)
        except TooManyOpen as error:
            device.backing_close(self._fd, backing_id)
            raise Refusal(errno.ENFILE) from error
        return backing_id

    def _let_go(self, node: int) -> None:
        """Do not keep a backing id any longer; open handles go on with it."""
        with self._lock:
            kept = self._parts.handles.let_go(node)
            if kept is not None:
                self._close_unused(node, kept.backing_id)

    def _close_unused(self, node: int, backing_id: int) -> None:
        if self._parts.handles.mode_of(node) is None:
            device.backing_close(self._fd, backing_id)

    def release(self, request: Request, _task: Task) -> Answer:
        """RELEASE and RELEASEDIR."""
        self.close(request.body.fh)
        return b""

    def close(self, fh: int) -> None:
        """Drop a handle; one that is unknown was dropped before."""
        with self._lock:
            handle = self._parts.close(fh)
            if handle is not None and handle.mode is Mode.PASSTHROUGH:
                self._close_unused(handle.node, handle.backing_id)

    def read(self, request: Request, task: Task) -> Answer:
        """READ."""
        body = request.body
        content = self._parts.contents.get(request.node)
        if content is not None:
            count = content.read_into(task.buffer[: body.size], body.offset)
            if count >= 0:
                return task.buffer[:count]
        return Later(self._read_later, self._timeout_s)

    def _read_later(self, request: Request, task: Task) -> Payload:
        start = at = request.body.offset
        with self._lock:
            info = self._parts.info(request.node)
        stop = min(start + request.body.size, info.size)
        while at < stop:
            opened, _ = self._fetch(request.node, info, at, stop - at, task)
            # From this answer alone: other reads of the file may crowd it out of what is kept.
            at += read_some(opened, task.buffer[at - start : stop - start], at)
        return task.buffer[: max(0, stop - start)]

    def _fetch(
        self, node: int, info: ObjectInfo, offset: int, length: int, task: Task
    ) -> tuple[Opened, Content]:
        """What the source gave, and all that is known of the file now."""
        wanted = min(length, info.size - offset)
        source = self._parts.source
        try:
            opened = patiently(task, lambda _: source.open(info, offset, wanted))
        except Refusal as refusal:
            if refusal.errno == errno.ESTALE:
                self._doubt(node)
            raise
        return opened, self._parts.contents.learn(node, info, opened, time.monotonic())

    def _doubt(self, node: int) -> None:
        """This version is gone: the next lookup of its name asks, whatever the listing says."""
        with self._lock:
            place = self._parts.inodes.place(node)
            if place is None or not self._parts.directories.doubt(*place):
                return
        if self._no_open:  # no open will ask, so the kernel must
            self._notices.submit(lambda: self._notify(codec.notify_forget_name_bytes(*place)))

    def _notify(self, notice: bytes) -> None:
        with contextlib.suppress(OSError):  # the kernel does not know the name any more
            os.write(self._fd, notice)


def _leased(content: Content | None) -> bool:
    return content is not None and time.monotonic() < content.lease_until_s
