"""The open files behind the inodes: what was opened at the source and may be read without asking again.

One `Content` per inode, an inode being one version of an object, so its bytes are right for as long as
they are kept. At most `files_max` files; what has not been used for longest goes first. Its lease says
only for how long a new open may use it without asking.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from hotshard.calls import Opened
from hotshard.core.errors import CorruptData
from hotshard.core.objects import ObjectInfo
from hotshard.handles import Handle
from hotshard.openfile import OpenFile

_preadv = os.preadv
IDLE_S = 60.0  # beyond its lease
PASSING_MAX = 32  # contents not sealed, whose bytes may lie in memory: at most 4 pieces each


class Content:
    """One version of one object, as far as it is open here."""

    __slots__ = ("handle", "info", "lease_until_s")

    def __init__(self, info: ObjectInfo) -> None:
        self.info = info
        self.handle = Handle(info)
        self.lease_until_s = 0.0

    def learn(self, opened: Opened, now_s: float) -> None:
        """Take in what the source gave us."""
        self.handle.learn(opened.pieces)
        self.lease_until_s = now_s + opened.lease_s

    @property
    def files(self) -> int:
        """How many open files it may hold."""
        return max(1, len(self.handle.pieces))

    def whole(self) -> OpenFile | None:
        """The file that holds this object and nothing else, if it is one that stays as it is."""
        handle = self.handle
        return handle.file if handle.delta == 0 else None

    def read_into(self, view: memoryview, offset: int) -> int:
        """Fill `view` from `offset` as far as the object goes; -1: not all of it is at hand."""
        handle = self.handle
        stop = min(offset + len(view), handle.size)
        done = 0
        while offset < stop:
            file, delta, end = handle.file, handle.delta, stop
            if file is None:
                piece = handle.find(offset)
                if piece is None:
                    return -1
                file, delta, end = piece.file, piece.delta, min(stop, piece.stop)
            got = _preadv(file.fd, (view[done : done + end - offset],), offset + delta)
            if got <= 0:
                raise CorruptData(f"{handle.info.uri}: the cached file ends at {offset}")
            done += got
            offset += got
        return done


def read_some(opened: Opened, view: memoryview, offset: int) -> int:
    """Read what one answer of the source has of an object from `offset` on; how many bytes, at least 1.

    Raises:
        CorruptData: there is nothing at `offset`.
    """
    for piece in opened.pieces:
        if piece.start <= offset < piece.stop:
            room = view[: piece.stop - offset]
            count = _preadv(piece.file.fd, (room,), offset + piece.delta)
            if count > 0:
                return count
    raise CorruptData(f"{opened.info.uri}: the source gave nothing at {offset}")


class Contents:
    """The contents of a mount, by inode. Safe for threads."""

    def __init__(self, files_max: int) -> None:
        self.dropped: Callable[[int], None] = lambda _node: None
        """Told of each node whose content is kept no longer; called without a lock of ours."""
        self._files_max = files_max
        self._files = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[int, Content] = OrderedDict()
        self._passing: OrderedDict[int, None] = OrderedDict()
        self.get = self._known.get
        """The content of a node, without a lock: a lost update of the order does no harm."""

    @property
    def files(self) -> int:
        """How many files are open."""
        return self._files

    def used(self, node: int) -> None:
        """Note that somebody opened it again."""
        with self._lock:
            if node in self._known:
                self._known.move_to_end(node)

    def learn(self, node: int, info: ObjectInfo, opened: Opened, now_s: float) -> Content:
        """Take in an answer of the source."""
        dropped = []
        with self._lock:
            content = self._known.get(node)
            if content is None:
                content = self._known[node] = Content(info)
            else:
                self._files -= content.files
                self._known.move_to_end(node)
            content.learn(opened, now_s)
            self._files += content.files
            dropped += self._pass_by(node, opened)
            while self._files > self._files_max and len(self._known) > 1:
                oldest, gone = self._known.popitem(last=False)
                self._files -= gone.files
                dropped.append(oldest)
        for each in dropped:
            self.dropped(each)
        return content

    def _pass_by(self, node: int, opened: Opened) -> list[int]:
        """Of contents that lie in memory keep the newest only; what was dropped. Locked."""
        if all(piece.sealed for piece in opened.pieces):
            return []
        self._passing[node] = None
        self._passing.move_to_end(node)
        if len(self._passing) <= PASSING_MAX:
            return []
        oldest, _ = self._passing.popitem(last=False)
        content = self._known.get(oldest)
        if content is None or content.handle.file is not None:  # dropped, or whole by now
            return []
        del self._known[oldest]
        self._files -= content.files
        return [oldest]

    def expire(self, now_s: float) -> None:
        """Close what lies idle beyond its lease: its disk space may be wanted."""
        with self._lock:
            late = [n for n, c in self._known.items() if c.lease_until_s + IDLE_S < now_s]
            for node in late:
                self._files -= self._known.pop(node).files
        for node in late:
            self.dropped(node)
