"""The S3 origin: any bucket of AWS, or of a server that speaks its protocol.

Bytes and HEADs go through engines (s3_engine.py) in threads of their own; LISTs, and whatever an engine
declines, through aiobotocore (s3_client.py). Tries and waits (tries.py) are shared by both.

The ETag is the version, and every GET carries it in If-Match. A versioned bucket is read at its current
version: `versionId` is not sent, because reading by it needs the permission s3:GetObjectVersion, which
few roles have, and If-Match pins the content as well.

Keys that end in "/" are folder marks of consoles, not objects: they are neither listed nor served.
"""

import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from cache_server.origins.origin import (
    Fetched,
    First,
    Interrupted,
    Landed,
    ListPage,
    OnRequest,
    Target,
    Want,
    ignore_request,
)
from cache_server.origins.reactor import Reactor
from cache_server.origins.s3_client import Answer, S3Client, S3Options, timeouts_of
from cache_server.origins.s3_connection import Endpoint, StaleConnection
from cache_server.origins.s3_engine import Ask, Engine
from cache_server.origins.s3_replies import (
    Subject,
    Unexpected,
    check_range,
    if_match,
    object_info,
    version_of,
    whole_checksum,
)
from cache_server.origins.threads import Threads
from cache_server.origins.transfer import FileSink, TargetFailed, Transfer, in_thread
from cache_server.origins.tries import Transient, Tries, counted
from cache_server.scope import step
from hotshard.core.checksum import Checksum, checksum
from hotshard.core.errors import (
    InvalidRequest,
    NotFound,
    OriginUnavailable,
    PermissionDenied,
    StaleObject,
    code_name,
)
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import Address, parse

__all__ = ["S3Options", "S3Origin"]

_PAGE_MAX = 1000  # S3's own limit
# At least two, so that a disk that makes one wait does not stop all; each carries 2 to 3 GB/s.
_REACTORS_MIN, _REACTORS_MAX = 2, 8
_QUICK_IN_FLIGHT = 64  # begun fetches that one reactor takes before another one helps
_WRITERS = 4  # threads that write what came through aiobotocore
T = TypeVar("T")


class S3Origin:
    """One bucket, or what lies under one prefix of it."""

    def __init__(self, options: S3Options, on_request: OnRequest = ignore_request) -> None:
        self.prefix = options.prefix
        self._bucket = parse(options.prefix).bucket
        self._key_at = len(f"s3://{self._bucket}/")
        self._options = options
        self._on_request = on_request
        self._client = S3Client(options, self._bucket)
        self._tries = Tries(on_request, attempts=options.attempts, concurrency=options.concurrency)
        self.pace = self._tries.pace
        self._reactors = [Reactor(f"s3-{number}") for number in range(_reactor_count())]
        self._engines: list[Engine] = []  # one per reactor; none: aiobotocore does everything
        self._resolved = False
        self._resolving = asyncio.Lock()
        self._writers = Threads(_WRITERS, "s3-writer")

    async def start(self) -> None:
        """Read the AWS configuration; asks nothing of S3.

        Raises:
            ConfigError: it cannot work.
        """
        await self._client.start()
        for reactor in self._reactors:
            reactor.start()

    async def close(self) -> None:
        """Give up connections and threads; idempotent."""
        self._writers.close()
        self._renew_engines(None)
        for reactor in self._reactors:
            await reactor.close()
        await self._client.close()

    async def stat(self, uri: str) -> ObjectInfo:
        """Describe one object."""
        return await self._stat(uri, None)

    async def _stat(self, uri: str, failed: Transient | None) -> ObjectInfo:
        subject = Subject(uri, self._bucket, pinned=False)
        key = self._key(uri)
        headers = await self._tries.until_done(
            "HEAD", uri, lambda: self._head(subject, key, {}), failed=failed
        )
        try:
            return object_info(uri, headers)
        except Unexpected as error:
            raise OriginUnavailable(str(error), uri=uri) from error

    async def list_page(
        self, prefix: str, *, recursive: bool, token: str, page_size: int
    ) -> ListPage:
        """One page of what begins with `prefix`; may be empty and still name a next one."""
        address = self._address(prefix)
        subject = Subject(prefix, self._bucket, pinned=False)
        query: dict[str, Any] = {"Prefix": address.key, "MaxKeys": min(page_size, _PAGE_MAX)}
        if not recursive:
            query["Delimiter"] = "/"
        if token:
            query["ContinuationToken"] = token
        page = await self._tries.until_done(
            "LIST", prefix, lambda: self._client.list(subject, **query)
        )
        return self._list_page(page)

    async def whole_checksum(self, info: ObjectInfo) -> Checksum | None:
        """S3's checksum of exactly this version; None also when it may not be asked for."""
        subject = Subject(info.uri, self._bucket, pinned=True)
        key = self._key(info.uri)
        extra = {"if-match": if_match(info), "x-amz-checksum-mode": "ENABLED"}
        try:
            headers = await self._tries.until_done(
                "HEAD", info.uri, lambda: self._head(subject, key, extra)
            )
        except (StaleObject, PermissionDenied):
            return None
        return whole_checksum(headers) if version_of(headers) == info.version else None

    async def fetch(self, want: Want, target: Target) -> Fetched:
        """Write the wanted range of exactly that version into the target file."""
        info = want.info
        if want.offset < 0 or want.length < 0 or want.offset + want.length > info.size:
            raise InvalidRequest(
                f"[{want.offset}, {want.offset + want.length}) is not within the"
                f" {info.size} bytes of {info.uri}",
                uri=info.uri,
            )
        if not want.length:
            return Fetched(checksum(want.algorithm, b""), want.algorithm)
        subject = Subject(info.uri, self._bucket, pinned=True)
        return await self._get_retried(subject, want, target, None)

    async def fetch_first(self, uri: str, target: Target, length_max: int) -> First:
        """Describe an object, and write all of it if it is not too large (FirstOrigin).

        One try; when it fails in a way that may pass, it is described as `stat` does, which tries on.
        """
        subject = Subject(uri, self._bucket, pinned=False)
        key = self._key(uri)
        failed: Transient | None = None
        if await self._ready(subject):
            try:
                async with self.pace.turn():
                    with (
                        counted(self._on_request, "GET") as payload,
                        step("origin", "GET", uri=uri),
                    ):
                        first = await self._first(subject, key, target, length_max)
                        payload.size = first.info.size if first.fetched else 0
            except Transient as error:
                failed = error
            else:
                self._tries.succeeded()
                return first
        return First(await self._stat(uri, failed), None)

    def begin_fetch(
        self, want: Want, target: Target, landed: Landed, limit_s: float = math.inf
    ) -> bool:
        """Begin a `fetch` if nothing has to be waited for first (QuickOrigin)."""
        keys = self._client.keys_now()
        uri = want.info.uri
        if (
            keys is None
            or not (self._resolved and self._engines and want.length)
            or not uri.startswith(self.prefix)
            or not self.pace.enter()
        ):
            return False
        subject = Subject(uri, self._bucket, pinned=True)
        ask = Ask(uri[self._key_at :], subject, keys)
        began = time.monotonic()

        def ended(outcome: Fetched | Exception) -> None:
            self.pace.leave()
            landed(self._judged(want, target, subject, began, outcome))

        # All on one reactor while it can: threads that take turns at the interpreter cost more than
        # they carry.
        number = 0
        if self._reactors[0].in_flight >= _QUICK_IN_FLIGHT:
            number = min(range(len(self._reactors)), key=lambda n: self._reactors[n].in_flight)
        engine = self._engines[number]
        self._reactors[number].post(partial(engine.begin_get, ask, want, target, limit_s), ended)
        return True

    def _judged(
        self,
        want: Want,
        target: Target,
        subject: Subject,
        began: float,
        outcome: Fetched | Exception,
    ) -> Fetched | Exception:
        """What a begun fetch comes to; whatever is no outcome for good goes on as `fetch` does."""
        seconds = time.monotonic() - began
        if isinstance(outcome, Fetched):
            try:
                fetched = _verified(want.info.uri, outcome)
            except Transient as error:
                outcome = error
            else:
                self._tries.succeeded()
                self._on_request("GET", "ok", seconds, want.length)
                return fetched
        if isinstance(outcome, Transient):
            self._on_request("GET", "retry", seconds, 0)
            rest = partial(self._get_retried, subject, want, target, outcome)
            return Interrupted(rest)
        if isinstance(outcome, StaleConnection | Unexpected):
            self._resolved = self._resolved and isinstance(outcome, StaleConnection)
            return Interrupted(partial(self._get_retried, subject, want, target, None))
        if isinstance(outcome, TargetFailed):
            self._on_request("GET", "internal", seconds, 0)
            return outcome.error
        self._on_request("GET", code_name(outcome).lower(), seconds, 0)
        return outcome

    async def _get_retried(
        self, subject: Subject, want: Want, target: Target, failed: Transient | None
    ) -> Fetched:
        key = self._key(want.info.uri)
        return await self._tries.until_done(
            "GET", want.info.uri, lambda: self._get(subject, key, want, target), want.length, failed
        )

    # -- one try ---------------------------------------------------------------------------------

    async def _head(self, subject: Subject, key: str, extra: dict[str, str]) -> dict[str, str]:
        if await self._ready(subject):
            ask = Ask(key, subject, await self._client.keys(subject))
            try:
                return await self._on_engine(lambda engine: engine.head(ask, extra))
            except Unexpected:
                self._resolved = False  # perhaps the bucket is elsewhere: botocore finds out below
        query = {
            "IfMatch": extra.get("if-match"),
            "ChecksumMode": extra.get("x-amz-checksum-mode"),
        }
        answer = await self._client.head(subject, key, **{k: v for k, v in query.items() if v})
        return dict(answer.headers)

    async def _get(self, subject: Subject, key: str, want: Want, target: Target) -> Fetched:
        if await self._ready(subject):
            ask = Ask(key, subject, await self._client.keys(subject))
            try:
                fetched = await self._on_engine(lambda engine: engine.get(ask, want, target))
                return _verified(want.info.uri, fetched)
            except Unexpected:
                self._resolved = False
        last = want.offset + want.length - 1
        query = {"IfMatch": if_match(want.info), "Range": f"bytes={want.offset}-{last}"}
        async with self._client.get(subject, key, **query) as (answer, pieces):
            return await self._save(answer, pieces, want, target)

    async def _first(self, subject: Subject, key: str, target: Target, length_max: int) -> First:
        ask = Ask(key, subject, await self._client.keys(subject))
        try:
            first = await self._on_engine(lambda engine: engine.get_first(ask, target, length_max))
        except Unexpected as error:
            self._resolved = False
            raise Transient(str(error)) from error
        if first.fetched is not None:
            _verified(subject.uri, first.fetched)
        return first

    async def _save(
        self, answer: Answer, pieces: AsyncIterator[bytes], want: Want, target: Target
    ) -> Fetched:
        try:
            check_range(answer.status, answer.headers, want)
        except Unexpected as error:  # it ignored If-Match
            uri = want.info.uri
            raise StaleObject(f"{uri} changed at the origin ({error})", uri=uri) from error
        transfer = Transfer()
        sink = FileSink(target, want.algorithm, transfer)
        received = 0
        async for piece in pieces:
            received += len(piece)
            if received > want.length:
                break
            await in_thread(self._writers, partial(sink, memoryview(piece)), transfer)
        if received != want.length:
            raise Transient(f"{received} bytes of body instead of {want.length}")
        return Fetched(sink.sum.value(), sink.algorithm)

    async def _on_engine(self, request: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        if not self._engines:
            raise OriginUnavailable(f"{self.prefix} is closed", uri=self.prefix)
        # The least busy; the first of equals, so that a few requests keep to warm connections.
        reactor = min(self._reactors, key=lambda reactor: reactor.in_flight)
        engine = self._engines[self._reactors.index(reactor)]
        return await reactor.run(lambda: request(engine))

    async def _ready(self, subject: Subject) -> bool:
        """See that the engines know where the bucket is; False: there are none."""
        if not self._resolved:
            async with self._resolving:
                if not self._resolved:
                    self._renew_engines(await self._client.endpoint(subject))
                    self._resolved = True
        return bool(self._engines)

    def _renew_engines(self, endpoint: Endpoint | None) -> None:
        for reactor, engine in zip(self._reactors, self._engines, strict=False):
            reactor.call(engine.close)
        payer = self._options.requester_pays
        self._engines = [
            Engine(endpoint, timeouts_of(self._options), requester_pays=payer)
            for _ in self._reactors
            if endpoint
        ]

    # -- addresses and listings ------------------------------------------------------------------

    def _address(self, uri: str) -> Address:
        if not uri.startswith(self.prefix):
            raise InvalidRequest(f"{uri} is not below {self.prefix}", uri=uri)
        return parse(uri)

    def _key(self, uri: str) -> str:
        address = self._address(uri)
        if address.is_prefix:
            raise NotFound(f"{uri} names a prefix, not an object", uri=uri)
        return address.key

    def _list_page(self, page: dict[str, Any]) -> ListPage:
        base = f"s3://{self._bucket}/"
        return ListPage(
            objects=[
                ObjectInfo(
                    uri=base + entry["Key"],
                    version=version_of({"etag": entry.get("ETag", "")}),
                    size=entry["Size"],
                    mtime_ns=int(entry["LastModified"].timestamp()) * 1_000_000_000,
                )
                for entry in page.get("Contents", [])
                if not entry["Key"].endswith("/")
            ],
            common_prefixes=[base + entry["Prefix"] for entry in page.get("CommonPrefixes", [])],
            next_token=page.get("NextContinuationToken", ""),
        )


def _reactor_count() -> int:
    cpus = len(os.sched_getaffinity(0))
    return min(_REACTORS_MAX, max(_REACTORS_MIN, cpus // 4))


def _verified(uri: str, fetched: Fetched) -> Fetched:
    """Compare a whole object with the checksum that came with it."""
    if fetched.whole and fetched.whole.value != fetched.checksum:
        raise Transient(f"the bytes of {uri} do not match the checksum S3 sent with them")
    return fetched
