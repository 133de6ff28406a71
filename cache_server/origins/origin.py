"""The interface of an origin: what the cache asks of S3 or of a POSIX tree.

An origin serves the objects below one `prefix`. It knows nothing of shards or caching. `fetch` puts the
bytes of one range straight into a file: payload does not pass through the event loop.
"""

import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.objects import ObjectInfo

OnRequest = Callable[[str, str, float, int], None]
"""Told of each request to the origin, on the loop: verb (GET, HEAD, LIST), outcome, seconds, payload bytes.

The outcome is "ok", "retry" (failed, and was or might have been tried again), "cancelled", or the code of
the error in lower case (hotshard.core.errors.code_name): "not_found", "stale", ...
"""


def ignore_request(verb: str, outcome: str, seconds: float, payload_bytes: int) -> None:
    """An OnRequest for those who do not count."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """Part of a listing, in key order."""

    objects: list[ObjectInfo]
    common_prefixes: list[str]
    """Uris that end in "/"; only from a listing that is not recursive."""
    next_token: str
    """Where to go on; empty: this was the last page."""


@dataclass(frozen=True, slots=True)
class Want:
    """[offset, offset + length) of one version, at most one block long."""

    info: ObjectInfo
    offset: int
    length: int
    algorithm: Algorithm = Algorithm.XXH3_64
    """Which checksum to compute as the bytes arrive."""

    @property
    def entire(self) -> bool:
        """Whether it is all of the object."""
        return self.length == self.info.size


@dataclass(frozen=True, slots=True)
class Target:
    """Where fetched bytes go."""

    fd: int
    file_offset: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch wrote."""

    checksum: int
    """Of the bytes as they arrived, under the algorithm that was asked for."""
    algorithm: Algorithm
    """The one asked for, or the one of `whole`, when the origin sent that along."""
    whole: Checksum | None = None
    """The origin's checksum of the whole object, when this response carried it."""


class Origin(Protocol):
    """One configured origin.

    Every method raises only HotshardError: NotFound, PermissionDenied, StaleObject, OriginUnavailable,
    InvalidRequest. Retries happen inside; a raised error is final for this request.
    """

    prefix: str
    """The uri prefix it serves; ends in "/"."""

    async def stat(self, uri: str) -> ObjectInfo:
        """Describe one object."""

    async def list_page(
        self, prefix: str, *, recursive: bool, token: str, page_size: int
    ) -> ListPage:
        """One page of what begins with `prefix` (any string, not only one that ends in "/")."""

    async def whole_checksum(self, info: ObjectInfo) -> Checksum | None:
        """The origin's own checksum of exactly this version, if it keeps one that can be combined."""

    async def fetch(self, want: Want, target: Target) -> Fetched:
        """Write the wanted range of exactly that version into the target file.

        When it has returned or raised (cancellation included), nothing writes to the target any more.

        Raises:
            StaleObject: the origin holds another version by now, or none.
            OSError: the target could not be written (not a HotshardError; its errno says why).
        """

    async def close(self) -> None:
        """Give up connections and threads; idempotent."""


class Interrupted(Exception):
    """A fetch that was begun did not get through at its first try."""

    def __init__(self, go_on: Callable[[], Coroutine[Any, Any, Fetched]]) -> None:
        super().__init__()
        self.go_on = go_on
        """The rest of its tries; returns and raises as `fetch` does."""


Landed = Callable[[Fetched | Exception], None]
"""Told on the event loop of a fetch that was begun: what it wrote, what `fetch` would raise, or
Interrupted."""


class QuickOrigin(Protocol):
    """An origin that can begin to fetch without a task or a future: for very many small objects."""

    def begin_fetch(
        self, want: Want, target: Target, landed: Landed, limit_s: float = math.inf
    ) -> bool:
        """Begin a `fetch` if nothing has to be waited for first; False: it cannot, use `fetch`.

        `landed` is called once, after this has returned; then nothing writes to the target any more.
        After `close` it may be called no more. What takes longer than `limit_s` is Interrupted.
        """


@dataclass(frozen=True, slots=True)
class First:
    """What is known of an object that was asked for by its name alone."""

    info: ObjectInfo
    fetched: Fetched | None
    """All of its bytes, written; None: they are more than was allowed, or came to nothing."""


class FirstOrigin(Protocol):
    """An origin that can describe an object and give its bytes in one request."""

    async def fetch_first(self, uri: str, target: Target, length_max: int) -> First:
        """Describe an object, and write all of it into the target if it is no larger than that.

        When it has returned or raised (cancellation included), nothing writes to the target any more.

        Raises:
            HotshardError: as `stat` does.
            OSError: the target could not be written.
        """


class PeerBlocks(Protocol):
    """The other members of a cluster, as a place where blocks may be."""

    def nobody_first(self, digest: bytes) -> bool:
        """Whether the blocks of a shard are ours to fetch, and no member may have them."""

    async def helped(
        self, want: Want, target: Target, first: Callable[[], Coroutine[Any, Any, Fetched]]
    ) -> Fetched:
        """What the first one gives; when it finds the origin away, what somebody else can get."""

    async def fetch(
        self, want: Want, target: Target, *, forwarded: bool, demand: bool
    ) -> Fetched | None:
        """Write the wanted range into the target, from a member that has it or whose it is to fetch.

        Args:
            want: what.
            target: where to.
            forwarded: a member waits for this: ask nobody who would have to fetch it.
            demand: a reader waits for it.

        Returns:
            What was written; None: it is ours to fetch from the origin, or nobody could be asked.

        Raises:
            StaleObject, NotFound: as a member says, who asked the origin.
            OSError: the target could not be written.
        """
