"""Operations on many objects: batched reads, listings, prefetch. Pure, like `hotshard.ops`.

A batched read asks for the next batch before it reads the present one, so that the server opens files
while the client copies bytes. What is under a lease is not asked for at all.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from hotshard.calls import (
    Fetch,
    Fetched,
    ListPage,
    Open,
    Opened,
    OpenMany,
    Page,
    Prefetch,
    Prefix,
    ServerStatus,
    StatMany,
    Status,
    WarmProgress,
    WarmStatus,
)
from hotshard.core.errors import HotshardError, NotFound, Overloaded, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.handles import Handle
from hotshard.ops import ASK_BYTES, Operations, check_range
from hotshard.steps import Operation

BATCH_ASK_BYTES = 8 << 20  # most that a batch waits for of each object: all of a small one
MEMBERS_PER_BATCH = 1024  # ranges, most of them under a lease
OPENS_PER_CALL = 128  # the protocol's limit
URIS_PER_CALL = 100  # so that a reply, with a version for each, fits one packet
CALL_BYTES = 64 << 10  # of uris in one call; the local socket takes about 200 KiB in one message
BATCHES_AHEAD = 2  # OpenMany calls in flight: the server opens one batch while we read the other
FETCHES_AHEAD = 8  # Fetch calls in flight
WARM_WAIT_S = 1.0  # how long the server may sit on a progress question
WARM_RESTARTS = 5  # a job that a restarted server has forgotten is begun again this often

Range = tuple[str, int, int | None]
"""uri, offset, length (None: to the end)."""

Ask = str | tuple[str, int, int | None]
"""A whole object, or a range of one."""


class _Batch:
    """Neighbouring ranges that are asked for together."""

    __slots__ = ("call", "members")

    def __init__(
        self, call: OpenMany | Fetch | None, members: list[tuple[int, Handle | None]]
    ) -> None:
        self.call = call
        """None: nothing has to be asked."""
        self.members = members
        """Index of each range, with its handle if a lease holds."""


def read_many(
    ops: Operations, ranges: Sequence[Range], *, return_errors: bool
) -> Operation[list[bytes | HotshardError]]:
    """The bytes of each range, in the order asked."""
    for uri, offset, length in ranges:
        check_range(uri, offset, length)
    results: list[bytes | HotshardError] = [b""] * len(ranges)
    batches = _open_batches(ops, ranges) if ops.passes_files else _fetch_batches(ranges)
    depth = BATCHES_AHEAD if ops.passes_files else FETCHES_AHEAD
    ahead: deque[tuple[_Batch, object]] = deque()
    while True:
        while len(ahead) < depth and (batch := next(batches, None)) is not None:
            ticket = (yield from ops.ask_early(batch.call)) if batch.call else None
            ahead.append((batch, ticket))
        if not ahead:
            return results
        batch, ticket = ahead.popleft()
        answers = iter((yield from _answers(ops, batch, ticket)))
        for index, handle in batch.members:
            answer = next(answers) if handle is None else handle
            try:
                results[index] = yield from _finish(ops, ranges[index], answer)
            except HotshardError as error:
                if not return_errors:
                    raise
                results[index] = error


def _open_batches(ops: Operations, ranges: Sequence[Range]) -> Iterator[_Batch]:
    """OpenMany calls without what is under a lease, looked up only when its turn comes."""
    opens: list[Open] = []
    members: list[tuple[int, Handle | None]] = []
    size = 0
    for index, (uri, offset, length) in enumerate(ranges):
        if len(members) >= MEMBERS_PER_BATCH or len(opens) >= OPENS_PER_CALL or size >= CALL_BYTES:
            yield _Batch(OpenMany(opens) if opens else None, members)
            opens, members, size = [], [], 0
        handle = ops.leased(uri)
        members.append((index, handle))
        if handle is None:
            wanted = BATCH_ASK_BYTES if length is None else min(length, BATCH_ASK_BYTES)
            opens.append(Open(uri, "", offset, wanted))
            size += _size(uri)
    if members:
        yield _Batch(OpenMany(opens) if opens else None, members)


def _fetch_batches(ranges: Sequence[Range]) -> Iterator[_Batch]:
    """A Fetch for each range that is not empty."""
    for index, (uri, offset, length) in enumerate(ranges):
        wanted = ASK_BYTES if length is None else min(length, ASK_BYTES)
        call = Fetch(uri, "", offset, wanted) if wanted else None
        yield _Batch(call, [(index, None)])


def _answers(ops: Operations, batch: _Batch, ticket: object) -> Operation[Sequence[Any]]:
    """One for each member without a handle: Opened, Fetched, a refusal, or None (not asked yet)."""
    if batch.call is None:
        return [None] * len(batch.members)
    try:
        reply = yield from ops.ask(batch.call, ticket)
    except HotshardError as error:
        if isinstance(batch.call, OpenMany):
            raise
        return [error]
    return reply if isinstance(batch.call, OpenMany) else [reply]


def _finish(ops: Operations, wanted: Range, answer: Any) -> Operation[bytes]:
    """The bytes of one range, once the answer to the first call for it is there."""
    uri, offset, length = wanted
    try:
        if isinstance(answer, Handle):
            return (yield from ops.read_at(answer, offset, length))
        if isinstance(answer, Opened):
            return (yield from ops.read_at(ops.opened(uri, answer), offset, length))
        if isinstance(answer, Fetched):
            return (yield from ops.rest_of(answer, offset, length))
        if isinstance(answer, HotshardError) and not isinstance(answer, Overloaded):
            raise answer
    except StaleObject:
        ops.forget(uri)
    return (yield from ops.read(uri, offset, length))


def ranges(asks: Iterable[Ask]) -> list[Range]:
    """What a caller of `read_many` wants, in one form."""
    return [(ask, 0, None) if isinstance(ask, str) else ask for ask in asks]


def listed(uris: str | Iterable[str]) -> list[str]:
    """One uri, or several."""
    return [uris] if isinstance(uris, str) else list(uris)


def entries(page: Page) -> list[ObjectInfo | Prefix]:
    """Objects and folds of a page in one order."""
    both: list[ObjectInfo | Prefix] = [*page.objects, *page.prefixes]
    if page.prefixes:
        both.sort(key=lambda entry: entry.uri)
    return both


def stat_many(ops: Operations, uris: Sequence[str]) -> Operation[list[ObjectInfo | HotshardError]]:
    """Describe many objects, in the order asked."""
    results: list[ObjectInfo | HotshardError] = []
    for some in _portions(uris):
        results += yield from ops.ask(StatMany(some))
    return results


def list_page(ops: Operations, prefix: str, token: str, *, recursive: bool) -> Operation[Page]:
    """One page of a listing."""
    page: Page = yield from ops.ask(ListPage(prefix, recursive, token, 0))
    return page


def status(ops: Operations) -> Operation[ServerStatus]:
    """The server in figures."""
    report: ServerStatus = yield from ops.ask(Status())
    return report


def prefetch(ops: Operations, uris: Sequence[str]) -> Operation[list[str]]:
    """Begin to make objects and prefixes resident; the ids of the jobs that do it."""
    jobs: list[str] = []
    for some in _portions(uris):
        job: str = yield from ops.ask(Prefetch(some))
        jobs.append(job)
    return jobs


def warm(
    ops: Operations, uris: Sequence[str], progress: Callable[[WarmProgress], object] | None
) -> Operation[WarmProgress]:
    """Make objects and prefixes resident and see it through."""
    total = WarmProgress(done=True)
    portions = list(_portions(uris))
    for portion in portions:
        last = portion is portions[-1]
        now = yield from _warm_portion(ops, portion, replace(total, done=last), progress)
        total = total.plus(now)
    return total


def _warm_portion(
    ops: Operations,
    uris: Sequence[str],
    before: WarmProgress,
    progress: Callable[[WarmProgress], object] | None,
) -> Operation[WarmProgress]:
    restarts = 0
    job: str = yield from ops.ask(Prefetch(uris))
    while True:
        try:
            now: WarmProgress = yield from ops.ask(WarmStatus(job, WARM_WAIT_S))
        except NotFound:
            restarts += 1
            if restarts > WARM_RESTARTS:
                raise
            job = yield from ops.ask(Prefetch(uris))
            continue
        if progress is not None:
            progress(before.plus(now))
        if now.done:
            return now


def _portions(uris: Sequence[str]) -> Iterator[list[str]]:
    """Cut into what one call can carry."""
    some: list[str] = []
    size = 0
    for uri in uris:
        if len(some) >= URIS_PER_CALL or size >= CALL_BYTES:
            yield some
            some, size = [], 0
        some.append(uri)
        size += _size(uri)
    if some:
        yield some


def _size(uri: str) -> int:
    """At least the bytes of a uri in a message."""
    return len(uri) if uri.isascii() else 4 * len(uri)
