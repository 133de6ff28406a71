"""What a client knows of objects: which bytes lie in which open file, and for how long to trust the name.

A `Handle` is one version of one object. The bytes it knows are right for ever (a version's bytes never
change, a file that was handed out never loses any); only the link from uri to version has a lease. So a
file object may go on with a handle whose lease ran out, a new open may not.

A `HandleTable` maps uris to handles, at most `files_max` open files in all; what has not been asked for
longest goes first. Dropping a handle drops references: the OpenFile closes when its last reader is done.

Threads share both without a lock. A handle's `file` is set at most once, `pieces` is replaced as a whole,
and a lost update only costs another call. Pure: the caller brings the clock.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from hotshard.calls import Opened, Piece
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile

SEALED_PIECES_MAX = 128  # per object; beyond, the oldest is asked for again when it is needed
PARTIAL_PIECES_MAX = 4  # their files may hold the server's memory, so few are kept
TOUCH_PERIOD_S = 1.0  # how often a reuse is noted for the eviction policy
TOUCHED_MAX = 100  # reuses waiting to be told, as many as one call takes; more are dropped
RECOUNT_PERIOD = 64  # opens between two exact counts of the files in a table
READ_MAX = 0x7FFFF000  # most that one read call of Linux returns
NEVER = float("-inf")


class Handle:
    """One version of one object, and the pieces of it that are at hand."""

    __slots__ = (
        "delta",
        "file",
        "info",
        "lease_until",
        "pieces",
        "quick_until",
        "size",
        "straight",
        "straight_file",
        "straight_until",
        "touch_at",
    )

    def __init__(self, info: ObjectInfo) -> None:
        self.info = info
        self.size = info.size
        self.lease_until = NEVER
        self.quick_until = NEVER
        """Until then the whole object may be read from `file` without looking at anything else."""
        self.touch_at = NEVER
        """From then on a reuse is worth telling the server."""
        self.file: OpenFile | None = None
        """The file with the whole object, `delta` further on, if there is one."""
        self.delta = 0
        self.straight = False
        """`file` holds the object and nothing else: an offset in one is an offset in the other."""
        self.straight_until = NEVER
        """As `quick_until`, and `straight_file` is there and the kernel itself cuts reads at its end."""
        self.pieces: tuple[Piece, ...] = ()
        """Ordered, not overlapping; not used once `file` is set."""

    def find(self, offset: int) -> Piece | None:
        """The piece that has the byte at `offset`."""
        pieces = self.pieces
        at = bisect_right(pieces, offset, key=_start) - 1
        if at >= 0 and offset < pieces[at].stop:
            return pieces[at]
        return None

    def learn(self, new: Sequence[Piece]) -> None:
        """Take in pieces; where old and new overlap, the new ones count."""
        if self.file is not None:
            return
        if len(new) == 1 and new[0].sealed and new[0].start == 0 and new[0].stop >= self.size:
            self.pieces = (new[0],)
            self.delta = new[0].delta
            self.file = new[0].file  # last: other threads look at it first
            return
        kept = list(self.pieces)
        for piece in new:
            if piece.stop > piece.start:
                kept = [rest for old in kept for rest in _outside(old, piece)]
                kept.append(piece)
        kept = _nearest(kept)
        kept.sort(key=_start)
        self.pieces = tuple(kept)

    def renew(self, now: float, lease_s: float) -> None:
        """The server has just said that this version is the current one, and noted its use."""
        self.lease_until = now + lease_s if lease_s > 0 else NEVER
        self.touched(now)

    def touched(self, now: float) -> None:
        """This use is noted; for a while others need not be."""
        self.touch_at = now + TOUCH_PERIOD_S
        self.quick_until = NEVER if self.file is None else min(self.lease_until, self.touch_at)
        self.straight_until = self.quick_until if self.straight else NEVER

    def measured(self, file: OpenFile, file_bytes: int) -> None:
        """How long `file` is."""
        self.straight_file = file
        self.straight = self.delta == 0 and file_bytes == self.size <= READ_MAX
        self.straight_until = self.quick_until if self.straight else NEVER


def _start(piece: Piece) -> int:
    return piece.start


def _outside(old: Piece, new: Piece) -> list[Piece]:
    """What of `old` lies outside `new`."""
    if old.stop <= new.start or old.start >= new.stop:
        return [old]
    rest = []
    if old.start < new.start:
        rest.append(Piece(old.start, new.start, old.file, old.delta, sealed=old.sealed))
    if old.stop > new.stop:
        rest.append(Piece(new.stop, old.stop, old.file, old.delta, sealed=old.sealed))
    return rest


def _nearest(pieces: list[Piece]) -> list[Piece]:
    """Drop pieces over the limits: those farthest from the newest, which is the last in the list."""
    at = pieces[-1].start if pieces else 0
    pieces.sort(key=lambda piece: abs(piece.start - at))
    sealed = [piece for piece in pieces if piece.sealed]
    partial = [piece for piece in pieces if not piece.sealed]
    return sealed[:SEALED_PIECES_MAX] + partial[:PARTIAL_PIECES_MAX]


class HandleTable:
    """The handles a client may reuse, by uri."""

    def __init__(self, files_max: int) -> None:
        self._files_max = files_max
        self._files = 0  # about; threads may lose an update, `_recount` finds it again
        self._recount_in = RECOUNT_PERIOD
        self._touched: list[str] = []
        self._tell_at = NEVER
        self.handles: OrderedDict[str, Handle] = OrderedDict()

    def leased(self, uri: str, now: float) -> Handle | None:
        """The handle for `uri`, if its lease holds; counts as a use."""
        handle = self.handles.get(uri)
        if handle is None or now >= handle.lease_until:
            return None
        if now >= handle.touch_at:
            self._refresh(uri)
            handle.touched(now)
            if len(self._touched) < TOUCHED_MAX:
                self._touched.append(uri)
        return handle

    def opened(self, uri: str, opened: Opened, now: float) -> Handle:
        """Take in a reply about the current version of `uri`."""
        known = self.handles.get(uri)
        before = 0 if known is None else len(known.pieces)
        handle = known
        if handle is None or handle.info.version != opened.info.version:
            handle = Handle(opened.info)
        handle.learn(opened.pieces)
        handle.renew(now, opened.lease_s)
        if opened.lease_s > 0:
            self._keep(uri, handle, len(handle.pieces) - before)
        else:
            self.forget(uri)
        return handle

    def forget(self, uri: str) -> None:
        """The next use of `uri` asks the server."""
        known = self.handles.pop(uri, None)
        if known is not None:
            self._files -= len(known.pieces)

    def clear(self) -> None:
        """Forget everything."""
        self.handles.clear()
        self._touched = []
        self._files = 0

    def to_tell(self, now: float) -> list[str]:
        """The uris whose reuse the server should hear of now; often none."""
        if not self._touched or now < self._tell_at:
            return []
        touched, self._touched = self._touched, []
        self._tell_at = now + TOUCH_PERIOD_S
        return touched

    def _keep(self, uri: str, handle: Handle, added: int) -> None:
        self.handles[uri] = handle
        self._refresh(uri)
        self._files += added
        self._recount_in -= 1
        if self._recount_in <= 0:
            self._recount_in = RECOUNT_PERIOD
            self._files = sum([len(known.pieces) for known in list(self.handles.values())])
        while max(self._files, len(self.handles)) > self._files_max and len(self.handles) > 1:
            _, oldest = self.handles.popitem(last=False)
            self._files -= len(oldest.pieces)

    def _refresh(self, uri: str) -> None:
        try:
            self.handles.move_to_end(uri)
        except KeyError:  # another thread has just dropped it
            return
