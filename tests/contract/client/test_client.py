"""What every client promises, whichever way it reaches whichever server."""

import errno
import os

import pytest

import hotshard
from contract.client.conftest import Awaited, Setting
from hotshard import Prefix


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ everywhere, quickly."""
    block = bytes((i * 31 + seed) % 251 for i in range(251))
    return (block * (size // 251 + 1))[:size]


async def test_stat_says_what_the_origin_has(client: Awaited, setting: Setting):
    setting.put(setting.prefix + "a", b"hello")
    info = await client.stat(setting.prefix + "a")
    assert (info.uri, info.size) == (setting.prefix + "a", 5)
    assert info.version
    assert info.mtime_ns > 0


async def test_read_returns_the_bytes(client: Awaited, setting: Setting):
    data = pattern(300_000)
    uri = setting.prefix + "a"
    setting.put(uri, data)
    for _ in range(2):  # cold, then under a lease
        assert await client.read(uri) == data
        assert await client.read(uri, 7) == data[7:]
        assert await client.read(uri, 1000, 10) == data[1000:1010]
        assert await client.read(uri, 0, 0) == b""


async def test_reads_end_where_the_object_ends(client: Awaited, setting: Setting):
    data = pattern(1000)
    uri = setting.prefix + "a"
    setting.put(uri, data)
    for _ in range(2):
        assert await client.read(uri, 990, 100) == data[990:]
        assert await client.read(uri, 1000, 100) == b""
        assert await client.read(uri, 5000) == b""
        buffer = bytearray(20)
        assert await client.read_into(uri, buffer, 990) == 10
        assert buffer == data[990:] + bytes(10)
        assert await client.read_into(uri, buffer, 1000) == 0


async def test_read_into_any_buffer(client: Awaited, setting: Setting):
    data = pattern(4096)
    uri = setting.prefix + "a"
    setting.put(uri, data)
    for _ in range(3):
        words = memoryview(bytearray(4096)).cast("I")
        assert await client.read_into(uri, words) == 4096
        assert words.tobytes() == data
    with pytest.raises(TypeError):
        await client.read_into(uri, b"read-only")


async def test_objects_of_many_shards(client: Awaited, setting: Setting):
    data = pattern(3 * setting.shard_bytes + 12_345)
    uri = setting.prefix + "big"
    setting.put(uri, data)
    assert await client.read(uri) == data
    edge = setting.shard_bytes
    assert await client.read(uri, edge - 5, 10) == data[edge - 5 : edge + 5]
    buffer = bytearray(2 * edge)
    assert await client.read_into(uri, buffer, 100) == 2 * edge
    assert buffer == data[100 : 100 + 2 * edge]


async def test_empty_object(client: Awaited, setting: Setting):
    uri = setting.prefix + "empty"
    setting.put(uri, b"")
    for _ in range(2):
        assert (await client.stat(uri)).size == 0
        assert await client.read(uri) == b""
        assert await client.read_into(uri, bytearray(4)) == 0
        assert await client.read_many([uri]) == [b""]
        assert bytes(await client.map(uri)) == b""
        assert await (await client.open(uri)).read() == b""


@pytest.mark.parametrize(
    "key", ["with space", "ünï/çødé/ö", "a//b", "x/../y", "?q=1&r#f", "%41%2f", "k" * 1000]
)
async def test_keys_are_taken_as_they_are(client: Awaited, setting: Setting, key: str):
    if not setting.prefix.startswith("s3://"):
        pytest.skip("only S3 has such keys")
    setting.put(setting.prefix + key, key.encode())
    assert await client.read(setting.prefix + key) == key.encode()
    assert (await client.stat(setting.prefix + key)).uri == setting.prefix + key


async def test_read_many_keeps_the_order(client: Awaited, setting: Setting):
    contents = {f"{setting.prefix}many/{i:04}": pattern(100 + i, i) for i in range(300)}
    for uri, data in contents.items():
        setting.put(uri, data)
    uris = sorted(contents, reverse=True)
    assert await client.read_many(uris) == [contents[uri] for uri in uris]
    asks = [(uris[0], 3, 7), uris[1], (uris[0], 50, None), (uris[2], 0, 0), (uris[3], 9999, 5)]
    first, second = contents[uris[0]], contents[uris[1]]
    assert await client.read_many(asks) == [first[3:10], second, first[50:], b"", b""]
    assert await client.read_many([]) == []


async def test_read_many_of_big_objects(client: Awaited, setting: Setting):
    data = pattern(2 * setting.shard_bytes + 99)
    uris = [f"{setting.prefix}big/{i}" for i in range(3)]
    for uri in uris:
        setting.put(uri, data)
    assert await client.read_many(uris) == [data] * 3


async def test_read_many_with_errors(client: Awaited, setting: Setting):
    uris = [setting.prefix + name for name in ("a", "missing", "b")]
    setting.put(uris[0], b"A")
    setting.put(uris[2], b"B")
    with pytest.raises(hotshard.NotFound):
        await client.read_many(uris)
    first, second, third = await client.read_many(uris, return_errors=True)
    assert (first, third) == (b"A", b"B")
    assert isinstance(second, hotshard.NotFound)
    assert await client.read_many([uris[0]]) == [b"A"]  # and goes on


async def test_open_gives_a_file(client: Awaited, setting: Setting):
    data = pattern(2 * setting.shard_bytes + 777)
    uri = setting.prefix + "a"
    setting.put(uri, data)
    file = await client.open(uri)
    assert await file.read(10) == data[:10]
    assert await file.tell() == 10
    assert await file.seek(-7, os.SEEK_END) == len(data) - 7
    assert await file.read() == data[-7:]
    assert await file.read() == b""
    await file.seek(setting.shard_bytes - 100)
    buffer = bytearray(200)
    assert await file.readinto(buffer) == 200
    assert buffer == data[setting.shard_bytes - 100 : setting.shard_bytes + 100]
    await file.close()
    with pytest.raises(ValueError, match="closed"):
        await file.read(1)


async def test_a_missing_object(client: Awaited, setting: Setting):
    uri = setting.prefix + "missing"
    for call in (client.stat, client.read, client.open, client.map):
        with pytest.raises(FileNotFoundError) as caught:
            await call(uri)
        assert isinstance(caught.value, hotshard.NotFound)
        assert caught.value.errno == errno.ENOENT
        assert caught.value.uri == uri
    with pytest.raises(hotshard.NotFound):
        await client.read_into(uri, bytearray(1))


async def test_requests_that_make_no_sense(client: Awaited, setting: Setting):
    uri = setting.prefix + "a"
    setting.put(uri, b"hello")
    for _ in range(2):
        for offset, length in ((-1, 1), (0, -1), (2, -2), (-1, None)):
            with pytest.raises(hotshard.InvalidRequest):
                await client.read(uri, offset, length)
        with pytest.raises(hotshard.InvalidRequest):
            await client.read_into(uri, bytearray(1), -1)
        with pytest.raises(hotshard.InvalidRequest):
            await client.read_many([(uri, 0, -1)])
        with pytest.raises(hotshard.InvalidRequest):
            await client.map(uri, -1)
    for address in ("gs://bucket/key", "no address", "", "s3://"):
        with pytest.raises(hotshard.InvalidRequest):
            await client.stat(address)
    assert await client.read(uri) == b"hello"


async def test_an_open_file_never_mixes_versions(client: Awaited, setting: Setting):
    """A handle is pinned to the version it was opened with."""
    uri = setting.prefix + "a"
    old, new = pattern(3 * setting.shard_bytes, 1), pattern(3 * setting.shard_bytes, 2)
    setting.put(uri, old)
    file = await client.open(uri)
    assert await file.read(1000) == old[:1000]
    setting.put(uri, new)
    await file.seek(2 * setting.shard_bytes)
    with pytest.raises(hotshard.StaleObject) as caught:
        await file.read(1000)
    assert caught.value.errno == errno.ESTALE


async def test_list_in_order_over_pages(client: Awaited, setting: Setting):
    uris = [f"{setting.prefix}l/{i:03}" for i in range(250)]
    for uri in uris:
        setting.put(uri, b"x")
    setting.put(setting.prefix + "other", b"")
    entries = await client.listed(setting.prefix + "l/")
    assert [entry.uri for entry in entries] == uris
    assert {entry.size for entry in entries} == {1}
    assert [e.uri for e in await client.listed(setting.prefix + "l/00")] == uris[:10]
    assert await client.listed(setting.prefix + "nothing/") == []


async def test_list_folds_what_is_below(client: Awaited, setting: Setting):
    for key in ("d/b", "d/a/1", "d/a/2", "d/c/1"):
        setting.put(setting.prefix + key, b"x")
    entries = await client.listed(setting.prefix + "d/", recursive=False)
    assert [entry.uri for entry in entries] == [setting.prefix + k for k in ("d/a/", "d/b", "d/c/")]
    assert [isinstance(entry, Prefix) for entry in entries] == [True, False, True]


async def test_stat_many(client: Awaited, setting: Setting):
    uris = [f"{setting.prefix}s/{i}" for i in range(150)]
    for uri in uris[:-1]:
        setting.put(uri, b"abc")
    results = await client.stat_many(uris)
    assert [result.uri for result in results] == uris
    assert {result.size for result in results[:-1]} == {3}
    assert isinstance(results[-1], hotshard.NotFound)


async def test_warm_sees_it_through(client: Awaited, setting: Setting):
    for i in range(5):
        setting.put(f"{setting.prefix}w/{i}", pattern(1000, i))
    seen: list[hotshard.WarmProgress] = []
    outcome = await client.warm([setting.prefix + "w/"], seen.append)
    assert outcome.complete
    assert (outcome.resident_objects, outcome.resident_bytes) == (5, 5000)
    assert seen[-1] == outcome
    assert all(not progress.done for progress in seen[:-1])


async def test_warm_tells_what_failed(client: Awaited, setting: Setting):
    setting.put(setting.prefix + "there", b"x")
    uris = [setting.prefix + "there", setting.prefix + "missing"]
    outcome = await client.warm(uris)
    assert outcome.done
    assert not outcome.complete
    assert outcome.failed_objects == 1
    assert isinstance(outcome.failures[0], hotshard.NotFound)


async def test_prefetch_returns_at_once(client: Awaited, setting: Setting):
    setting.put(setting.prefix + "p", b"x")
    jobs = await client.prefetch(setting.prefix + "p")
    assert len(jobs) == 1


async def test_status(client: Awaited, setting: Setting):
    status = await client.status()
    assert status.node_id
    assert status.ready
    assert status.disks[0].state == "ready"


async def test_map_is_a_read_only_view(client: Awaited, setting: Setting):
    data = pattern(setting.shard_bytes - 100)
    uri = setting.prefix + "m"
    setting.put(uri, data)
    view = await client.map(uri)
    part = await client.map(uri, 5000, 3000)
    setting.remove(uri)
    assert view == data
    assert part == data[5000:8000]
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1


async def test_the_server_may_restart(client: Awaited, setting: Setting):
    """A job does not fail because the daemon restarts."""
    uri, other = setting.prefix + "a", setting.prefix + "b"
    setting.put(uri, b"hello")
    setting.put(other, b"world")
    assert await client.read(uri) == b"hello"
    setting.restart()
    assert await client.read(other) == b"world"
    assert await client.read_many([uri, other]) == [b"hello", b"world"]
    assert (await client.stat(uri)).size == 5


async def test_a_closed_client_says_so(client: Awaited, setting: Setting):
    setting.put(setting.prefix + "a", b"hello")
    await client.read(setting.prefix + "a")
    await client.close()
    await client.close()
    with pytest.raises(hotshard.InvalidRequest, match="closed"):
        await client.read(setting.prefix + "a")
