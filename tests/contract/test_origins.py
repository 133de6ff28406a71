"""What every origin promises: one suite for S3 (a real server) and for a POSIX tree."""

import asyncio
import itertools
import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from cache_server.origins.origin import Fetched, ListPage, Origin, Target, Want
from cache_server.origins.posix import PosixOptions, PosixOrigin
from cache_server.origins.s3 import S3Options, S3Origin
from hotshard.cli.s3_server import SeaweedS3
from hotshard.core.checksum import Algorithm, checksum
from hotshard.core.errors import InvalidRequest, NotFound, StaleObject
from hotshard.core.objects import ObjectInfo
from support import s3 as support_s3

ODD_KEYS = [
    "with space",
    "plus+and%and%2Fpercent",
    "ünï/日本語/🙂",
    "a&b=c?d#e;f,g'h\"i",
    "~tilde/-dash_under.dot!(star)*",
    "=lead/ /blank",
]


_numbers = itertools.count()


@pytest.fixture(scope="module")
def shared(s3: SeaweedS3) -> tuple[Any, str]:
    boto = support_s3.client(s3)
    return boto, support_s3.new_bucket(boto)


class World(Protocol):
    """An origin, and a way to change what is in it behind its back."""

    prefix: str

    @property
    def origin(self) -> Origin: ...

    def put(self, key: str, body: bytes) -> None: ...

    def delete(self, key: str) -> None: ...


class S3World:
    def __init__(self, boto: Any, bucket: str) -> None:
        self._root = (
            f"{next(_numbers)}/"  # one bucket for all tests: making one takes SeaweedFS a second
        )
        self.prefix = f"s3://{bucket}/{self._root}"
        self.origin = S3Origin(S3Options(self.prefix, addressing="path"))
        self._boto, self._bucket = boto, bucket

    def put(self, key: str, body: bytes) -> None:
        self._boto.put_object(Bucket=self._bucket, Key=self._root + key, Body=body)

    def delete(self, key: str) -> None:
        self._boto.delete_object(Bucket=self._bucket, Key=self._root + key)


class PosixWorld:
    def __init__(self, directory: Path) -> None:
        self.prefix = f"file://{directory}/"
        self.origin = PosixOrigin(PosixOptions(self.prefix))
        self._directory = directory

    def put(self, key: str, body: bytes) -> None:
        path = self._directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name("~new")
        new.write_bytes(body)
        new.replace(path)

    def delete(self, key: str) -> None:
        (self._directory / key).unlink()


@pytest.fixture(params=["s3", "posix"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made: S3World | PosixWorld
    if request.param == "s3":
        made = S3World(*request.getfixturevalue("shared"))
    else:
        (tmp_path / "tree").mkdir()
        made = PosixWorld(tmp_path / "tree")
    await made.origin.start()
    yield made
    await made.origin.close()
    await made.origin.close()


@pytest.fixture
def target(tmp_path: Path) -> Any:
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield Target(fd, 0)
    os.close(fd)


def content(size: int, seed: int = 7) -> bytes:
    return random.Random(seed).randbytes(size)


async def info_of(world: World, key: str) -> ObjectInfo:
    return await world.origin.stat(world.prefix + key)


async def fetch(world: World, want: Want, target: Target) -> tuple[Fetched, bytes]:
    fetched = await world.origin.fetch(want, target)
    return fetched, os.pread(target.fd, want.length, target.file_offset)


async def pages(
    world: World, prefix: str = "", *, recursive: bool = True, page_size: int = 1000
) -> list[ListPage]:
    found, token = [], ""
    while True:
        page = await world.origin.list_page(
            world.prefix + prefix, recursive=recursive, token=token, page_size=page_size
        )
        assert len(page.objects) + len(page.common_prefixes) <= page_size
        found.append(page)
        token = page.next_token
        if not token:
            return found


def names(world: World, found: list[ListPage]) -> list[str]:
    return [info.uri.removeprefix(world.prefix) for page in found for info in page.objects]


# -- stat ----------------------------------------------------------------------------------------


async def test_stat_describes_an_object(world: World) -> None:
    world.put("dir/one", b"12345")
    info = await info_of(world, "dir/one")
    assert (info.uri, info.size) == (f"{world.prefix}dir/one", 5)
    assert info.version
    assert '"' not in info.version
    assert info.mtime_ns > 1_600_000_000_000_000_000


async def test_stat_twice_gives_one_version_and_a_change_another(world: World) -> None:
    world.put("one", b"12345")
    first = await info_of(world, "one")
    assert await info_of(world, "one") == first
    world.put("one", b"54321")
    assert (await info_of(world, "one")).version != first.version


@pytest.mark.parametrize("key", ["missing", "dir/missing", "one/below-a-file", "dir", "dir/"])
async def test_what_is_no_object_is_not_found(world: World, key: str) -> None:
    world.put("one", b"1")
    world.put("dir/two", b"2")
    with pytest.raises(NotFound) as caught:
        await info_of(world, key)
    assert caught.value.uri == world.prefix + key


async def test_an_address_outside_of_the_prefix_is_invalid(world: World) -> None:
    outside = world.prefix[:-1] + "-sibling/x"
    with pytest.raises(InvalidRequest, match="not below"):
        await world.origin.stat(outside)
    with pytest.raises(InvalidRequest, match="not below"):
        await world.origin.list_page(outside, recursive=True, token="", page_size=10)


# -- list ----------------------------------------------------------------------------------------

# Without names that differ only by what follows ("a-b" beside "a/"): SeaweedFS lists these in the order
# of its directories, not of the keys as S3 does. test_posix_tree.py has them.
KEYS = ["a/1", "a/2/deep", "a/3", "b/1", "train-1", "trainer/x", "z"]


async def test_a_listing_is_in_key_order_and_describes_as_stat_does(world: World) -> None:
    for key in reversed(KEYS):
        world.put(key, key.encode())
    (page,) = await pages(world)
    assert names(world, [page]) == KEYS
    assert page.common_prefixes == []
    assert page.objects[0] == await info_of(world, KEYS[0])


@pytest.mark.parametrize("page_size", [1, 2, 3])
async def test_pages_join_to_the_whole_listing(world: World, page_size: int) -> None:
    for key in KEYS:
        world.put(key, b"x")
    assert names(world, await pages(world, page_size=page_size)) == KEYS


async def test_a_token_works_after_others_were_used(world: World) -> None:
    for number in range(6):
        world.put(f"k{number}", b"x")

    async def page(token: str) -> ListPage:
        return await world.origin.list_page(world.prefix, recursive=True, token=token, page_size=2)

    first = await page("")
    second = await page(first.next_token)
    again = await page(first.next_token)
    assert names(world, [again]) == names(world, [second]) == ["k2", "k3"]


async def test_a_delimited_listing_stops_at_directories(world: World) -> None:
    for key in KEYS:
        world.put(key, b"x")
    for page_size in (2, 1000):
        found = await pages(world, recursive=False, page_size=page_size)
        assert names(world, found) == ["train-1", "z"]
        prefixes = [uri for page in found for uri in page.common_prefixes]
        assert prefixes == [f"{world.prefix}{name}/" for name in ("a", "b", "trainer")]


async def test_a_prefix_need_not_be_a_directory(world: World) -> None:
    for key in KEYS:
        world.put(key, b"x")
    assert names(world, await pages(world, "tra")) == ["train-1", "trainer/x"]
    assert names(world, await pages(world, "a/")) == ["a/1", "a/2/deep", "a/3"]
    assert names(world, await pages(world, "a/2")) == ["a/2/deep"]
    found = await pages(world, "tra", recursive=False)
    assert names(world, found) == ["train-1"]
    assert found[0].common_prefixes == [f"{world.prefix}trainer/"]


@pytest.mark.parametrize("prefix", ["", "nothing/", "noth", "no/such/thing"])
async def test_nothing_under_a_prefix_is_an_empty_page(world: World, prefix: str) -> None:
    assert await pages(world, prefix) == [ListPage([], [], "")]


# -- fetch ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 3_000_000), (0, 1), (2_999_999, 1), (1, 2_999_998), (4096, 1 << 20), (77, 262_144)],
)
async def test_a_range_lands_in_the_file_where_it_should(
    world: World, target: Target, offset: int, length: int
) -> None:
    body = content(3_000_000)
    world.put("one", body)
    place = replace(target, file_offset=12_345)
    want = Want(await info_of(world, "one"), offset, length)
    fetched, got = await fetch(world, want, place)
    assert got == body[offset : offset + length]
    assert fetched.checksum == checksum(fetched.algorithm, got)
    assert os.fstat(target.fd).st_size == 12_345 + length
    assert os.pread(target.fd, 12_345, 0) == bytes(12_345)


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_a_range_is_summed_as_asked(
    world: World, target: Target, algorithm: Algorithm
) -> None:
    body = content(100_000)
    world.put("one", body)
    want = Want(await info_of(world, "one"), 10, 99_000, algorithm)
    fetched, got = await fetch(world, want, target)
    assert fetched.algorithm is algorithm
    assert fetched.checksum == checksum(algorithm, body[10:99_010])
    assert got == body[10:99_010]


async def test_an_empty_object_is_fetched(world: World, target: Target) -> None:
    world.put("empty", b"")
    info = await info_of(world, "empty")
    assert info.size == 0
    fetched, got = await fetch(world, Want(info, 0, 0), target)
    assert got == b""
    assert fetched.checksum == checksum(fetched.algorithm, b"")


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, 6), (5, 1), (6, 0), (2, -1)])
async def test_a_range_beyond_the_object_is_invalid(
    world: World, target: Target, offset: int, length: int
) -> None:
    world.put("one", b"12345")
    with pytest.raises(InvalidRequest):
        await fetch(world, Want(await info_of(world, "one"), offset, length), target)
    assert os.fstat(target.fd).st_size == 0


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_odd_keys_are_served(world: World, target: Target, key: str) -> None:
    body = key.encode()
    world.put(key, body)
    info = await info_of(world, key)
    assert (await fetch(world, Want(info, 0, info.size), target))[1] == body
    assert (await fetch(world, Want(info, 1, info.size - 1), target))[1] == body[1:]
    assert names(world, await pages(world)) == [key]


@pytest.mark.parametrize("length", [8, 3])
async def test_an_overwritten_object_is_stale(world: World, target: Target, length: int) -> None:
    world.put("one", b"old-body")
    info = await info_of(world, "one")
    world.put("one", b"new-body")
    with pytest.raises(StaleObject) as caught:
        await fetch(world, Want(info, 0, length), target)
    assert caught.value.uri == info.uri
    new = await info_of(world, "one")
    assert (await fetch(world, Want(new, 0, length), target))[1] == b"new-body"[:length]


async def test_a_deleted_object_is_stale_to_who_has_it_open(world: World, target: Target) -> None:
    world.put("one", b"12345")
    info = await info_of(world, "one")
    world.delete("one")
    with pytest.raises(StaleObject):
        await fetch(world, Want(info, 0, 5), target)
    with pytest.raises(NotFound):
        await info_of(world, "one")


@pytest.mark.parametrize("version", ["", "nonsense", 'a"b', "a\r\nx-amz-evil: 1", "ü", "x" * 999])
async def test_a_version_that_never_was_is_stale(
    world: World, target: Target, version: str
) -> None:
    world.put("one", b"12345")
    info = replace(await info_of(world, "one"), version=version)
    with pytest.raises(StaleObject):
        await fetch(world, Want(info, 0, 5), target)


async def test_32_fetches_at_once(world: World, target: Target) -> None:
    body = content(32 * 50_000)
    world.put("one", body)
    info = await info_of(world, "one")
    async with asyncio.TaskGroup() as group:
        for number in range(32):
            place = replace(target, file_offset=number * 50_000)
            group.create_task(world.origin.fetch(Want(info, number * 50_000, 50_000), place))
    assert os.pread(target.fd, len(body), 0) == body


async def test_a_cancelled_fetch_writes_no_more_and_disturbs_nobody(
    world: World, target: Target
) -> None:
    body = content(8 << 20)
    world.put("one", body)
    info = await info_of(world, "one")
    for turn in range(8):
        os.ftruncate(target.fd, 0)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(world.origin.fetch(Want(info, 0, info.size), target))
            for _ in range(turn * 3):
                await asyncio.sleep(0)
            task.cancel()
        size = os.fstat(target.fd).st_size
        _, got = await fetch(world, Want(info, 100, 1000), Target(target.fd, info.size))
        assert got == body[100:1100]
        if size < info.size:  # not even later
            assert os.pread(target.fd, info.size - size, size) == bytes(info.size - size)


async def test_a_target_that_cannot_be_written_is_the_callers_own_error(
    world: World, tmp_path: Path
) -> None:
    world.put("one", b"12345")
    info = await info_of(world, "one")
    path = tmp_path / "read-only"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Bad file descriptor"):
            await world.origin.fetch(Want(info, 0, 5), Target(fd, 0))
    finally:
        os.close(fd)
