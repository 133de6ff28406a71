"""What was agreed with the kernel at INIT, and which requests are being worked on. Pure.

`negotiate` answers INIT by what the kernel offers, so the capability probe is the INIT exchange itself. The
payload of that answer is the only record of it: a later reader gets the agreement back from the same bytes.

`InFlight` decides who answers a request that is not answered at once: the worker that carries it out, the
deadline, or an interrupt. `take` succeeds once for each request, whoever comes first.
"""

from dataclasses import dataclass

from hotshard.mount import abi
from hotshard.mount.abi import Init
from hotshard.mount.codec import InitIn, Request

MAX_BACKGROUND = 256  # readahead requests the kernel keeps with us at one time
REQUEST_PAGES = 256  # 1 MiB, the default of fs.fuse.max_pages_limit
_PLAIN = (
    Init.ASYNC_READ
    | Init.ASYNC_DIO
    # Always, not READDIRPLUS_AUTO: find, ls and du read all names before they look at the first, and would
    # then look up each.
    | Init.DO_READDIRPLUS
    | Init.PARALLEL_DIROPS
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
    # An inode is one version of an object: its pages never become wrong.
    | Init.EXPLICIT_INVAL_DATA
)


class Unsupported(Exception):
    """The kernel speaks a protocol too old (or too new) for us."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which optional capabilities to use when the kernel has them."""

    passthrough: bool = True
    resend: bool = True
    no_open: bool = False
    """Open without asking us; every read then goes through the page cache of the mount."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The terms of one connection."""

    minor: int
    flags: int
    no_open: bool

    @property
    def passthrough(self) -> bool:
        """Whether an OPEN may name a backing file."""
        return bool(self.flags & Init.PASSTHROUGH)

    @property
    def resend(self) -> bool:
        """Whether the kernel sends unanswered requests again on demand."""
        return bool(self.flags & Init.HAS_RESEND)

    @property
    def readdirplus(self) -> bool:
        """Whether listings carry attributes."""
        return bool(self.flags & Init.DO_READDIRPLUS)

    @classmethod
    def from_reply(cls, payload: bytes, *, no_open: bool) -> "Agreement":
        """The agreement that an INIT reply made."""
        fields = abi.INIT_OUT.unpack(payload)
        return cls(minor=fields[1], flags=fields[3] | fields[10] << 32, no_open=no_open)


def negotiate(offer: InitIn, wanted: Wanted) -> tuple[Agreement, bytes]:
    """The agreement and the payload of the INIT reply.

    Raises:
        Unsupported: nothing can be agreed.
    """
    if offer.major != abi.MAJOR or offer.minor < abi.MINOR_OLDEST:
        raise Unsupported(
            f"the kernel speaks FUSE {offer.major}.{offer.minor};"
            f" {abi.MAJOR}.{abi.MINOR_OLDEST} (Linux 5.4) or later is needed"
        )
    ask = _PLAIN | Init.INIT_EXT
    ask |= Init.PASSTHROUGH if wanted.passthrough and not wanted.no_open else 0
    ask |= Init.HAS_RESEND if wanted.resend else 0
    flags = ask & offer.flags
    minor = min(offer.minor, abi.MINOR)
    payload = abi.INIT_OUT.pack(
        abi.MAJOR,
        minor,
        offer.max_readahead,
        flags & 0xFFFFFFFF,
        MAX_BACKGROUND,
        MAX_BACKGROUND * 3 // 4,
        abi.PAGE_BYTES,  # max_write: nobody writes; small, so that request buffers are small
        1,
        REQUEST_PAGES,
        0,
        flags >> 32,
        1 if flags & Init.PASSTHROUGH else 0,  # max_stack_depth: overlayfs may lie on top of us
        0,
    )
    no_open = wanted.no_open and bool(offer.flags & Init.NO_OPEN_SUPPORT)
    return Agreement(minor, flags, no_open), payload


@dataclass(slots=True)
class Pending:
    """A request that somebody is working on."""

    request: Request
    device: int
    """Which descriptor it came from: the kernel takes the answer only there."""
    slot: int
    """Where its bytes lie in shared memory until it is answered."""
    started_s: float
    deadline_s: float
    interrupted_s: float | None = None


class InFlight:
    """Requests not answered yet. Safe for threads: each method is one atomic step on a dict."""

    def __init__(self) -> None:
        self._pending: dict[int, Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, unique: int) -> bool:
        return unique in self._pending

    def uniques(self) -> list[int]:
        """The numbers of all of them now."""
        return list(self._pending)

    def add(self, pending: Pending) -> None:
        """From now on `take` may be called for it."""
        self._pending[pending.request.unique] = pending

    def take(self, unique: int) -> Pending | None:
        """The right to answer; None: somebody else has answered."""
        return self._pending.pop(unique, None)

    def interrupt(self, unique: int, now_s: float) -> bool:
        """Note that its caller got a signal; False: no such request (it may have been answered)."""
        pending = self._pending.get(unique) or self._pending.get(unique | abi.UNIQUE_RESEND)
        if pending is None:
            return False
        pending.interrupted_s = now_s
        return True

    def expired(self, now_s: float) -> list[Pending]:
        """Those past their deadline, taken."""
        late = [p.request.unique for p in list(self._pending.values()) if now_s >= p.deadline_s]
        return [p for unique in late if (p := self.take(unique)) is not None]

    def interrupted(self) -> list[Pending]:
        """Those whose caller got a signal; not taken."""
        return [p for p in list(self._pending.values()) if p.interrupted_s is not None]
