"""Warm-up: make objects and prefixes resident, and tell the truth about how far that got.

A job lists what it was given, fetches behind all demand, and in the end looks again: "resident" in the
last report is what the store holds then, not what was fetched at some time (a dataset larger than the
disk evicts its own beginning). The plan is kept as packed arrays, 24 bytes a shard and 12 an object, so
that a million objects fit.

A job goes on when its caller leaves. At most JOBS_MAX are remembered, finished ones go first.
"""

import asyncio
import logging
import uuid
from array import array
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from cache_server.cache import Cache
from cache_server.flight import Spawn
from cache_server.store.options import NoSpace
from hotshard.core.blocks import DIGEST_BYTES
from hotshard.core.errors import HotshardError, InternalError, NotFound, Overloaded
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import parse

log = logging.getLogger(__name__)

JOBS_MAX = 64
OBJECTS_IN_FLIGHT = 64  # per job; the fetch slots bound what really runs
FAILURES_REPORTED = 100
RESIDENCY_STRIDE = 4096  # shards looked up between two turns of the event loop


@dataclass(frozen=True, slots=True)
class WarmState:
    """Where a job stands. Bytes and objects planned = resident + failed + not yet there."""

    job_id: str
    listing: bool
    planned_objects: int
    planned_bytes: int
    resident_objects: int
    resident_bytes: int
    failed_objects: int
    failed_bytes: int
    failures: tuple[HotshardError, ...]
    done: bool


class _Job:
    """One warm-up and its plan."""

    def __init__(self, job_id: str, uris: list[str]) -> None:
        self.job_id = job_id
        self.uris = uris
        self.listing = True
        self.done = False
        self.resident_objects = 0
        self.resident_bytes = 0
        self.failed_objects = 0
        self.failed_bytes = 0
        self.failures: list[HotshardError] = []
        self.planned_bytes = 0
        self._sizes = array("Q")
        self._shard_counts = array("L")
        self._digests = bytearray()
        self.changed = asyncio.Event()

    def plan(self, info: ObjectInfo, digests: Iterable[bytes]) -> None:
        """Add an object to the plan."""
        count = 0
        for digest in digests:
            self._digests += digest
            count += 1
        self._sizes.append(info.size)
        self._shard_counts.append(count)
        self.planned_bytes += info.size

    def resident(self, info: ObjectInfo) -> None:
        """Note that an object has arrived."""
        self.resident_objects += 1
        self.resident_bytes += info.size
        self.notify()

    def failed(self, error: HotshardError, size: int) -> None:
        """Note that an object could not be made resident."""
        self.failed_objects += 1
        self.failed_bytes += size
        if len(self.failures) < FAILURES_REPORTED:
            self.failures.append(error)
        self.notify()

    async def recount(self, cache: Cache) -> None:
        """Set what is resident from what the store holds now."""
        objects = resident_bytes = position = 0
        for index, (size, shards) in enumerate(zip(self._sizes, self._shard_counts, strict=True)):
            end = position + shards * DIGEST_BYTES
            if all(
                cache.is_sealed(bytes(self._digests[at : at + DIGEST_BYTES]))
                for at in range(position, end, DIGEST_BYTES)
            ):
                objects += 1
                resident_bytes += size
            position = end
            if index % RESIDENCY_STRIDE == RESIDENCY_STRIDE - 1:
                await asyncio.sleep(0)
        self.resident_objects, self.resident_bytes = objects, resident_bytes

    def notify(self) -> None:
        """Wake those who wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def state(self) -> WarmState:
        """The job as a report."""
        return WarmState(
            job_id=self.job_id,
            listing=self.listing,
            planned_objects=len(self._sizes),
            planned_bytes=self.planned_bytes,
            resident_objects=self.resident_objects,
            resident_bytes=self.resident_bytes,
            failed_objects=self.failed_objects,
            failed_bytes=self.failed_bytes,
            failures=tuple(self.failures),
            done=self.done,
        )


class Warmer:
    """The warm-up jobs of this node."""

    def __init__(self, cache: Cache, spawn: Spawn) -> None:
        self._cache = cache
        self._spawn = spawn
        self._jobs: dict[str, _Job] = {}

    @property
    def running(self) -> int:
        """How many jobs are under way."""
        return sum(not job.done for job in self._jobs.values())

    def jobs(self) -> list[tuple[WarmState, list[str]]]:
        """The jobs under way, with what they are to load."""
        return [(job.state(), job.uris) for job in self._jobs.values() if not job.done]

    def start(self, uris: Sequence[str]) -> str:
        """Begin to make objects, and prefixes (uris that end in "/"), resident; return the job's id.

        Raises:
            InvalidRequest: one of them is not an address.
            Overloaded: too many jobs run already.
        """
        for uri in uris:
            parse(uri)
        self._forget_finished()
        if len(self._jobs) >= JOBS_MAX:
            raise Overloaded(f"{JOBS_MAX} warm-ups run already", retry_after_s=5.0)
        job = _Job(uuid.uuid4().hex, list(uris))
        self._jobs[job.job_id] = job
        self._spawn(self._run(job))
        return job.job_id

    async def progress(self, job_id: str, wait_s: float) -> WarmState:
        """Where a job stands, at its next change or after `wait_s`, whichever is first.

        Raises:
            NotFound: no such job (it may have been forgotten).
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound(f"no warm-up {job_id!r}: it ended a while ago, or the server restarted")
        if wait_s > 0 and not job.done:
            changed = job.changed
            try:
                async with asyncio.timeout(wait_s):
                    await changed.wait()
            except TimeoutError:
                pass
        return job.state()

    async def _run(self, job: _Job) -> None:
        found: asyncio.Queue[ObjectInfo | None] = asyncio.Queue(OBJECTS_IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(OBJECTS_IN_FLIGHT):
                    group.create_task(self._fetch(job, found))
                await self._plan(job, found)
            await job.recount(self._cache)
        except Exception as error:  # a defect must end the job, not leave its caller waiting
            log.exception("warm-up %s", job.job_id)
            job.failed(InternalError(f"{type(error).__name__} in the warm-up"), 0)
        finally:
            job.listing = False
            job.done = True
            job.notify()

    async def _plan(self, job: _Job, found: "asyncio.Queue[ObjectInfo | None]") -> None:
        for uri in job.uris:
            try:
                async for info in self._objects(uri):
                    job.plan(info, (key.digest for key in self._cache.shard_keys(info)))
                    await found.put(info)
            except HotshardError as error:
                job.failed(error, 0)
        job.listing = False
        for _ in range(OBJECTS_IN_FLIGHT):
            await found.put(None)

    async def _objects(self, uri: str) -> AsyncIterator[ObjectInfo]:
        if not parse(uri).is_prefix:
            yield await self._cache.stat(uri)
            return
        token, first = "", True
        while token or first:
            first = False
            page = await self._cache.list_page(uri, recursive=True, token=token, page_size=0)
            for info in page.objects:
                yield info
            token = page.next_token

    async def _fetch(self, job: _Job, found: "asyncio.Queue[ObjectInfo | None]") -> None:
        while (info := await found.get()) is not None:
            try:
                await self._cache.make_resident(info)
            except HotshardError as error:
                job.failed(error, info.size)
            except NoSpace as error:
                full = Overloaded(f"{info.uri}: {error}", uri=info.uri, retry_after_s=60.0)
                job.failed(full, info.size)
            else:
                job.resident(info)

    def _forget_finished(self) -> None:
        for job_id in [j for j, job in self._jobs.items() if job.done]:
            if len(self._jobs) < JOBS_MAX:
                return
            del self._jobs[job_id]
