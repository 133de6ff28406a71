"""Small shards: filled without a task where that is possible, and the same to their readers where not."""

import asyncio
import errno
import gc
import os
import random
from contextlib import nullcontext

import pytest

from cache_server.opened import Ask, Opened
from cache_server.scope import Scope, entered
from hotshard.core.errors import HotshardError, OriginUnavailable, StaleObject
from support.cache import BLOCK, cache_world, read_opened
from support.memory_origin import MemoryOrigin, QuickMemory
from support.stores import until


async def read_all(world, uris: list[str]) -> list[bytes | HotshardError]:
    """As one OpenMany."""
    answers = await world.cache.open_many([Ask(uri, "", 0, BLOCK) for uri in uris])
    return [read_opened(a, 0, BLOCK) if isinstance(a, Opened) else a for a in answers]


@pytest.mark.parametrize(
    "trouble", ["none", "refused", "interrupted", "one block of slots", "all at once"]
)
async def test_what_is_read_is_what_the_origin_has(tmp_path, trouble):
    origin, slots = MemoryOrigin(), 1 if trouble == "one block of slots" else 8
    data = [random.Random(i).randbytes(1 + i * 31) for i in range(100)]
    uris = [origin.put(f"o/{i:03}", body) for i, body in enumerate(data)]
    async with asyncio.TaskGroup() as group:
        quick = QuickMemory(origin, group)
        quick.refuse = 20 if trouble in {"refused", "all at once"} else 0
        quick.interrupt = 20 if trouble in {"interrupted", "all at once"} else 0
        async with cache_world(tmp_path, origin, slots=slots, quick=quick) as world:
            page = await world.cache.list_page(
                origin.prefix, recursive=True, token="", page_size=1000
            )
            assert len(page.objects) == 100
            assert await read_all(world, uris) == data
            assert quick.begun >= 60
            assert origin.asked["GET"] == 100
            assert origin.fetching_max <= slots
            assert all(world.cache.open_now(uri, "", 0, 1) for uri in uris)
            assert await read_all(world, uris) == data
            assert origin.asked["GET"] == 100
            assert world.count('hotshard_fills_total{outcome="sealed"}') == 100


def open_for_writing() -> int:
    """How many cached files this process can write to."""
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
                flags = int(info.read().split("flags:")[1].split()[0], 8)
        except FileNotFoundError:  # the one that lists them
            continue
        count += "/sealed/" in path and flags & os.O_ACCMODE != os.O_RDONLY
    return count


async def test_a_fill_that_is_done_leaves_nothing_for_the_collector(tmp_path):
    origin = MemoryOrigin()
    uris = [origin.put(f"o/{i:03}", b"v" * 100) for i in range(100)]
    async with (
        asyncio.TaskGroup() as group,
        cache_world(tmp_path, origin, quick=QuickMemory(origin, group)) as world,
    ):
        for uri in uris:
            await world.cache.stat(uri)
        gc.collect()
        gc.disable()
        try:
            assert await read_all(world, uris) == [b"v" * 100] * 100
            await until(lambda: not open_for_writing())
            assert gc.collect() < len(uris)
        finally:
            gc.enable()


async def test_readers_of_one_object_share_its_fill(tmp_path):
    origin = MemoryOrigin()
    uri = origin.put("o", b"x" * 100)
    async with asyncio.TaskGroup() as group:
        quick = QuickMemory(origin, group)
        async with cache_world(tmp_path, origin, quick=quick) as world:
            await world.cache.stat(uri)
            answers = await asyncio.gather(*(read_all(world, [uri] * 4) for _ in range(8)))
            assert answers == [[b"x" * 100] * 4] * 8
            assert origin.asked["GET"] == 1


async def test_each_failure_is_that_object_s_alone(tmp_path):
    origin = MemoryOrigin()
    uris = [origin.put(f"{i}", b"y" * 50) for i in range(3)]
    async with (
        asyncio.TaskGroup() as group,
        cache_world(tmp_path, origin, quick=QuickMemory(origin, group)) as world,
    ):
        for uri in uris:
            await world.cache.stat(uri)
        origin.put("1", b"another version")
        answers = await read_all(world, uris)
        assert answers[0] == answers[2] == b"y" * 50
        assert isinstance(answers[1], StaleObject)
        assert await read_all(world, [uris[1]]) == [b"another version"]  # it was forgotten
        origin.down = OriginUnavailable("away")
        other = origin.put("other", b"z")
        world.cache._catalog._learn(other, origin.info(other), 60.0)
        assert isinstance((await read_all(world, [other]))[0], OriginUnavailable)
        assert origin.asked["GET"] == 5  # not asked twice in one open
        origin.down = None
        assert await read_all(world, [other]) == [b"z"]


async def test_a_target_that_fails_costs_speed_only(tmp_path):
    origin = MemoryOrigin()
    uri = origin.put("o", b"w" * 100)
    failures = [OSError(errno.ENOSPC, "full")]

    def fail_once(*_: object) -> None:
        if failures:
            raise failures.pop()

    origin.before_fetch = fail_once
    async with (
        asyncio.TaskGroup() as group,
        cache_world(tmp_path, origin, quick=QuickMemory(origin, group)) as world,
    ):
        await world.cache.stat(uri)
        assert await read_all(world, [uri]) == [b"w" * 100]
        assert not failures


class _Spans:
    """A tracer that keeps names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def root(self, name: str, request_id: str, *, passed_on: bool) -> nullcontext[None]:
        return nullcontext()

    def child(self, name: str, attributes: dict[str, str]) -> nullcontext[None]:
        self.names.append(name)
        return nullcontext()


@pytest.mark.parametrize("traced", [False, True])
async def test_a_request_knows_that_it_waited_for_the_origin(tmp_path, traced):
    origin, spans = MemoryOrigin(), _Spans()
    first, second = (origin.put(key, key.encode() * 100) for key in "ab")
    async with asyncio.TaskGroup() as group:
        quick = QuickMemory(origin, group)
        async with cache_world(tmp_path, origin, quick=quick) as world:
            await read_all(world, [first])  # from now on there are blank files
            before = quick.begun
            with entered(Scope("one", spans if traced else None)) as scope:
                assert await read_all(world, [second]) == [b"b" * 100]
    assert scope.waits["origin"] > 0
    assert (quick.begun > before) == (not traced)
    assert ("origin GET" in spans.names) == traced
