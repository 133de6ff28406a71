"""A fill of a shard of at most one block: it comes in one go, reserve, fetch, seal.

There may be very many at a time, so where nothing has to be waited for (a slot, room on the disk, a blank
file, credentials, a turn at the origin) a fill is no task: each step is begun by the end of the one
before, and a small object costs a third of what a task and its futures would (docs/adr/0007). Whatever
has to wait, fails in a way that may pass, or is traced (spans are of tasks), goes on as a task.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from cache_server import scope
from cache_server.block_flight import BlockFlight
from cache_server.fill import Fill, FillTools
from cache_server.flight import result_of
from cache_server.origins.origin import Fetched, Interrupted, QuickOrigin, Target
from cache_server.origins.table import Mounted
from cache_server.store.shard import ShardKey
from cache_server.store.verify import Sums
from cache_server.store.volume import Partial
from hotshard.core.checksum import Algorithm, Checksum
from hotshard.core.objects import ObjectInfo
from hotshard.openfile import OpenFile


@dataclass(frozen=True, slots=True)
class Arrived:
    """All of a shard, in its file before there was a fill for it."""

    partial: Partial
    fetched: Fetched


class WholeFill(Fill):
    """A shard of at most one block.

    It is never handed out partial: sealing so little takes no time to speak of, and what is sealed can
    be leased.
    """

    def __init__(
        self,
        key: ShardKey,
        info: ObjectInfo,
        mounted: Mounted,
        tools: FillTools,
        *,
        demand: bool,
        arrived: Arrived | None = None,
    ) -> None:
        super().__init__(key, info, mounted, tools)
        self._flight = BlockFlight(demand=demand, forwarded=False)
        self._scope, self._begun_s = scope.current(), 0.0
        if arrived is not None:
            self._partial = arrived.partial
            self._arrived(arrived.fetched)
            return
        traced = self._scope is not None and self._scope.tracer is not None
        peers = mounted.peers
        at_once = peers is None or peers.nobody_first(key.digest)
        if mounted.quick is not None and key.size and at_once and not traced:
            self._quick: QuickOrigin = mounted.quick
            self._flight.ticket = tools.slots.ask(demand=demand, then=self._granted)
        else:
            tools.spawn(self._run())

    def wanted(self) -> "asyncio.Future[OpenFile]":
        """A reader waits for it; for what."""
        self._join(self._flight, demand=True, forwarded=False)
        return self.sealed

    @property
    def idle(self) -> bool:
        """Never: it is always on its way."""
        return False

    @property
    def present_bytes(self) -> int:
        """None, until it is sealed."""
        return 0

    async def want(
        self,
        start: int,  # noqa: ARG002
        stop: int,  # noqa: ARG002
        *,
        demand: bool = True,
        forwarded: bool = False,
    ) -> None:
        """Wait until it is sealed."""
        self._join(self._flight, demand=demand, forwarded=forwarded)
        await result_of(self.sealed)

    def ahead(self, start: int, stop: int) -> None:
        """It is on its way already."""

    def present_stop(self, start: int) -> int:
        """Nothing is present before all is."""
        return start

    def sums(self, start: int, stop: int) -> Sums | None:  # noqa: ARG002
        """None, until it is sealed."""
        return None

    def reader(self) -> OpenFile:
        """Nothing to hand out before it is sealed."""
        raise AssertionError("present_stop() says that nothing is present")

    # -- without a task ----------------------------------------------------------------------------

    def _granted(self) -> None:
        """It is our turn at the origin."""
        partial = self._partial = self._tools.store.begin_now(self.key)
        if partial is not None:
            want, file_offset = self._want(0, Algorithm.XXH3_64)
            target = Target(partial.file.fd, file_offset)
            self._begun_s = time.monotonic()
            if self._quick.begin_fetch(want, target, self._landed):
                return
        self._tools.spawn(self._run())

    def _landed(self, outcome: Fetched | Exception) -> None:
        """The bytes are in the file, or will not come this way."""
        if self._scope is not None:
            self._scope.waited("origin", time.monotonic() - self._begun_s)
        if isinstance(outcome, Interrupted):
            self._tools.spawn(self._run(outcome.go_on))
            return
        assert self._flight.ticket is not None, "_granted() came first"
        self._tools.slots.release(self._flight.ticket)
        if not isinstance(outcome, Fetched):
            self._tools.spawn(self._close(self._reason(outcome)))
            return
        self._arrived(outcome)

    def _arrived(self, fetched: Fetched) -> None:
        """The bytes are in the file."""
        self._tools.on_bytes(self.key.uri, "origin", self.key.size)
        assert self._partial is not None, "they are in its file"
        partial, self._partial = self._partial, None  # the store disposes of it, come what may
        sums, whole = [fetched.checksum], self._whole(fetched)
        self._tools.store.seal_soon(partial, sums, fetched.algorithm, whole, self._was_sealed)

    def _was_sealed(self, outcome: OpenFile | Exception) -> None:
        if isinstance(outcome, Exception):
            self._tools.spawn(self._close(self._reason(outcome)))
        else:
            self._told("sealed")
            self.sealed.set_result(outcome)

    # -- as a task ---------------------------------------------------------------------------------

    async def _run(self, go_on: Callable[[], Coroutine[Any, Any, Fetched]] | None = None) -> None:
        try:
            if self.key.size:
                fetched = await self._fetch(0, Algorithm.XXH3_64, self._flight, go_on)
                await self._seal([fetched.checksum], fetched.algorithm, self._whole(fetched))
            else:
                await self._file()
                await self._seal([], Algorithm.XXH3_64, None)
        except asyncio.CancelledError:
            self.sealed.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to those who wait
            await self._close(self._reason(error))

    def _whole(self, fetched: Fetched) -> Checksum | None:
        return fetched.whole if self.key.size == self.key.object_size else None
