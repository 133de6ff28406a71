"""An origin in memory, for tests of what stands above the origins. It passes their contract suite.

It counts what it is asked, and can hold fetches back or fail them, so that tests say when things happen
instead of hoping.
"""

import asyncio
import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cache_server.origins.origin import (
    Fetched,
    First,
    Interrupted,
    Landed,
    ListPage,
    Target,
    Want,
)
from hotshard.core.checksum import Checksum, checksum
from hotshard.core.errors import HotshardError, NotFound, StaleObject
from hotshard.core.objects import ObjectInfo


@dataclass
class MemoryOrigin:
    prefix: str = "s3://memory/"
    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    """uri -> (revision, content)."""
    asked: Counter[str] = field(default_factory=Counter)
    fetched_bytes: int = 0
    fetched: list[tuple[str, int, int]] = field(default_factory=list)
    down: HotshardError | None = None
    """Raised by everything while set."""
    before_fetch: Callable[[Want, Target], None] | None = None
    gate: asyncio.Event | None = None
    """While set and clear, fetches wait here."""
    first_fails: bool = False
    """First fetches bring a description and no bytes, as after a failure that may pass."""
    fetching: int = 0
    fetching_max: int = 0

    def put(self, name: str, content: bytes) -> str:
        uri = name if "://" in name else self.prefix + name
        revision = self.objects.get(uri, (0, b""))[0] + 1
        self.objects[uri] = (revision, content)
        return uri

    def info(self, uri: str) -> ObjectInfo:
        revision, content = self.objects[uri]
        return ObjectInfo(uri, f"v{revision}", len(content), revision * 1_000_000_000)

    async def start(self) -> None:
        """Nothing to do."""

    async def stat(self, uri: str) -> ObjectInfo:
        self.asked["HEAD"] += 1
        self._check_up()
        if uri not in self.objects:
            raise NotFound(f"{uri}: no such object", uri=uri)
        return self.info(uri)

    async def list_page(
        self, prefix: str, *, recursive: bool, token: str, page_size: int
    ) -> ListPage:
        self.asked["LIST"] += 1
        self._check_up()
        names: dict[str, bool] = {}
        for uri in sorted(self.objects):
            if uri.startswith(prefix) and uri > token:
                cut = uri.find("/", len(prefix))
                folded = uri if recursive or cut < 0 else uri[: cut + 1]
                if folded > token:
                    names[folded] = folded == uri
        page = list(names)[:page_size]
        return ListPage(
            [self.info(uri) for uri in page if names[uri]],
            [uri for uri in page if not names[uri]],
            page[-1] if len(names) > len(page) else "",
        )

    async def whole_checksum(self, info: ObjectInfo) -> Checksum | None:
        return None

    async def fetch_first(self, uri: str, target: Target, length_max: int) -> First:
        self.asked["FIRST"] += 1
        if self.gate is not None:
            await self.gate.wait()
        self._check_up()
        if uri not in self.objects:
            raise NotFound(f"{uri}: no such object", uri=uri)
        info = self.info(uri)
        if info.size > length_max or self.first_fails:
            return First(info, None)
        return First(info, self._write(Want(info, 0, info.size), target))

    async def fetch(self, want: Want, target: Target) -> Fetched:
        self.asked["GET"] += 1
        self.fetching += 1
        self.fetching_max = max(self.fetching_max, self.fetching)
        try:
            if self.gate is not None:
                await self.gate.wait()
            self._check_up()
            return self._write(want, target)
        finally:
            self.fetching -= 1

    def _write(self, want: Want, target: Target) -> Fetched:
        if self.before_fetch is not None:
            self.before_fetch(want, target)
        uri = want.info.uri
        if uri not in self.objects or self.info(uri).version != want.info.version:
            raise StaleObject(f"{uri} changed", uri=uri)
        data = self.objects[uri][1][want.offset : want.offset + want.length]
        os.pwrite(target.fd, data, target.file_offset)
        self.fetched_bytes += len(data)
        self.fetched.append((uri, want.offset, len(data)))
        return Fetched(checksum(want.algorithm, data), want.algorithm)

    async def close(self) -> None:
        """Nothing to do."""

    def _check_up(self) -> None:
        if self.down is not None:
            raise self.down


@dataclass
class QuickMemory:
    """Begins fetches of a memory origin, as the S3 origin does."""

    origin: MemoryOrigin
    group: asyncio.TaskGroup
    begun: int = 0
    refuse: int = 0
    """How many fetches it will not begin."""
    interrupt: int = 0
    """How many it begins and leaves to their second try."""

    def begin_fetch(
        self, want: Want, target: Target, landed: Landed, limit_s: float = math.inf
    ) -> bool:
        if self.refuse:
            self.refuse -= 1
            return False
        self.begun += 1
        self.group.create_task(self._fetch(want, target, landed))
        return True

    async def _fetch(self, want: Want, target: Target, landed: Landed) -> None:
        outcome: Fetched | Exception
        if self.interrupt:
            self.interrupt -= 1
            outcome = Interrupted(lambda: self.origin.fetch(want, target))
        else:
            try:
                outcome = await self.origin.fetch(want, target)
            except Exception as error:
                outcome = error
        landed(outcome)
