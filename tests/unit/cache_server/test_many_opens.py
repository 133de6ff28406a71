"""Many opens in one message: each has its answer, whatever the others are."""

import random

from cache_server.opened import Ask, Opened
from hotshard.core.errors import NotFound, PermissionDenied, StaleObject
from support.cache import BLOCK, GEOMETRY, cache_world, read, read_opened


async def test_every_kind_of_object_in_one_message(tmp_path):
    async with cache_world(tmp_path) as world:
        body = random.Random(1).randbytes(GEOMETRY.shard_bytes + 5)
        hot, cold = world.origin.put("hot", body[:100]), world.origin.put("cold", body[:200])
        large, empty = world.origin.put("large", body), world.origin.put("empty", b"")
        old = world.origin.put("old", body[:50])
        for uri in (hot, cold, large, empty, old):
            await world.cache.stat(uri)
        await read(world, hot)
        asks = [
            Ask(hot, "", 0, BLOCK),
            Ask(cold, "", 10, 20),
            Ask(cold, "", 0, BLOCK),
            Ask(cold, "", 500, 10),
            Ask(large, "", BLOCK + 1, 10),
            Ask(empty, "", 0, 10),
            Ask(old, "v9", 0, 10),
            Ask("s3://memory/missing", "", 0, 10),
            Ask("s3://elsewhere/x", "", 0, 10),
            Ask(world.origin.put("unknown", body[:30]), "", 0, 10),
        ]
        answers = await world.cache.open_many(asks)
        got = [
            read_opened(answer, ask.offset, min(ask.length, max(0, answer.info.size - ask.offset)))
            if isinstance(answer, Opened)
            else type(answer)
            for ask, answer in zip(asks, answers, strict=True)
        ]
        assert got == [
            body[:100],
            body[10:30],
            body[:200],
            b"",
            body[BLOCK + 1 :][:10],
            b"",
            StaleObject,
            NotFound,
            PermissionDenied,
            body[:10],
        ]
        assert [uri for uri, _, _ in world.origin.fetched].count(cold) == 1


async def test_sealed_shards_without_a_descriptor_are_opened_together(tmp_path):
    async with cache_world(tmp_path) as world:
        uris = [world.origin.put(f"{i}", bytes([i]) * 50) for i in range(20)]
        asks = [Ask(uri, "", 0, 50) for uri in uris]
        await world.cache.open_many(asks)
        fetched = world.origin.asked["GET"]
        for _ in range(5):
            world.store._shelf.files.halve()
        assert world.cache.open_now(uris[0], "", 0, 50) is None
        answers = await world.cache.open_many(asks)
        opened = [answer for answer in answers if isinstance(answer, Opened)]
        assert [read_opened(a, 0, 50) for a in opened] == [bytes([i]) * 50 for i in range(20)]
        assert world.origin.asked["GET"] == fetched
