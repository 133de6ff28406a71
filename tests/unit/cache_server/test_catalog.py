import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_server.catalog import NEGATIVE_TTL_S, ORIGIN_PAGE, Catalog
from cache_server.origins.table import Mounted, OriginTable
from cache_server.tasks import Tasks
from hotshard.core.errors import InvalidRequest, NotFound, OriginUnavailable, PermissionDenied
from hotshard.core.objects import ObjectInfo
from support.memory_origin import MemoryOrigin

AWAY = OriginUnavailable("the origin is away")


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class World:
    def __init__(self, group: asyncio.TaskGroup, **freshness) -> None:
        self.origin = MemoryOrigin()
        self.clock = Clock()
        self.remembered: dict[str, ObjectInfo] = {}
        self.catalog = self.new(group, **freshness)

    def new(self, group, entries_max=100_000, **freshness) -> Catalog:
        async def recall(uri: str) -> ObjectInfo | None:
            return self.remembered.get(uri)

        return Catalog(
            OriginTable([Mounted(self.origin, **freshness)]),
            spawn=Tasks(group).spawn,
            clock=self.clock,
            recall=recall,
            entries_max=entries_max,
        )


@pytest.fixture
async def group() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


async def test_a_description_is_good_for_its_time_and_then_asked_again(group):
    """SEMANTICS 3: metadata is believed for `metadata_ttl_s`, then asked for again."""
    world = World(group, metadata_ttl_s=60)
    uri = world.origin.put("a", b"one")
    assert (await world.catalog.stat(uri)).version == "v1"
    world.origin.put("a", b"three")
    world.clock.now_s += 59.9
    assert (await world.catalog.stat(uri)).version == "v1"
    assert world.catalog.lease_s(uri) == pytest.approx(0.1)
    world.clock.now_s += 0.2
    assert (await world.catalog.stat(uri)).version == "v2"
    assert world.origin.asked["HEAD"] == 2


async def test_immutable_is_never_asked_again_and_strict_always(group):
    """SEMANTICS 3: `immutable` never asks again, `strict` asks at every open."""
    immutable, strict = World(group, immutable=True), World(group, strict=True)
    uri = "s3://memory/a"
    for world in (immutable, strict):
        world.origin.put(uri, b"1")
        await world.catalog.stat(uri)
        world.clock.now_s += 1e9
        await world.catalog.stat(uri)
    assert immutable.origin.asked["HEAD"] == 1
    assert strict.origin.asked["HEAD"] == 2
    assert strict.catalog.fresh(uri) is None


async def test_a_handle_that_holds_the_version_we_know_does_not_ask_again(group):
    world = World(group, metadata_ttl_s=1)
    uri = world.origin.put("a", b"1")
    await world.catalog.stat(uri)
    world.clock.now_s += 100
    assert (await world.catalog.stat(uri, pinned="v1")).version == "v1"
    assert world.origin.asked["HEAD"] == 1
    await world.catalog.stat(uri, pinned="v0")
    assert world.origin.asked["HEAD"] == 2


async def test_a_missing_object_is_remembered_for_a_moment_only(group):
    world = World(group)
    for _ in range(2):
        with pytest.raises(NotFound):
            await world.catalog.stat("s3://memory/a")
    assert world.origin.asked["HEAD"] == 1
    world.origin.put("a", b"1")
    world.clock.now_s += NEGATIVE_TTL_S + 0.1
    assert (await world.catalog.stat("s3://memory/a")).size == 1


async def test_concurrent_questions_are_asked_once(group):
    world = World(group)
    uri = world.origin.put("a", b"1")
    tasks = [group.create_task(world.catalog.stat(uri)) for _ in range(50)]
    await asyncio.wait(tasks)
    assert world.origin.asked["HEAD"] == 1


async def test_what_is_known_stands_in_while_the_origin_is_away(group):
    """SEMANTICS 6: when the origin fails, cached data is still served."""
    world = World(group, metadata_ttl_s=10)
    uri = world.origin.put("a", b"1")
    await world.catalog.stat(uri)
    world.clock.now_s += 100
    world.origin.down = AWAY
    assert (await world.catalog.stat(uri)).version == "v1"
    with pytest.raises(OriginUnavailable):
        await world.catalog.stat("s3://memory/unknown")
    world.remembered["s3://memory/on-disk"] = ObjectInfo("s3://memory/on-disk", "v9", 5, 0)
    assert (await world.catalog.stat("s3://memory/on-disk")).version == "v9"


async def test_strict_does_not_believe_old_answers_even_then(group):
    world = World(group, strict=True)
    uri = world.origin.put("a", b"1")
    await world.catalog.stat(uri)
    world.origin.down = AWAY
    with pytest.raises(OriginUnavailable):
        await world.catalog.stat(uri)


async def test_a_listing_teaches_the_descriptions_and_is_kept(group):
    world = World(group)
    uris = [world.origin.put(f"d/{i:04}", b"x" * i) for i in range(2500)]
    found, token = [], ""
    while True:
        page = await world.catalog.list_page(
            "s3://memory/d/", recursive=True, token=token, page_size=80
        )
        found += page.objects
        token = page.next_token
        if not token:
            break
    assert [info.uri for info in found] == uris
    assert world.origin.asked["LIST"] == 3
    assert (await world.catalog.stat(uris[1234])).size == 1234
    assert world.origin.asked["HEAD"] == 0


async def test_a_page_that_changed_in_between_neither_repeats_nor_skips(group):
    world = World(group, metadata_ttl_s=10)
    for i in range(0, 100, 2):
        world.origin.put(f"d/{i:03}", b"")
    first = await world.catalog.list_page("s3://memory/d/", recursive=True, token="", page_size=20)
    world.clock.now_s += 11
    world.origin.put("d/001", b"")  # before what was given
    world.origin.put("d/099", b"")  # after it
    rest = await world.catalog.list_page(
        "s3://memory/d/", recursive=True, token=first.next_token, page_size=1000
    )
    names = [info.uri[-3:] for info in first.objects + rest.objects]
    assert names == [f"{i:03}" for i in range(0, 100, 2)] + ["099"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text("ab/", min_size=1, max_size=6), max_size=40, unique=True),
    st.integers(1, 7),
    st.booleans(),
)
def test_pages_put_together_are_the_whole_listing(names, page_size, recursive):
    async def check() -> None:
        async with asyncio.TaskGroup() as group:
            world = World(group)
            for name in names:
                world.origin.put(name, b"")
            whole = await world.origin.list_page(
                "s3://memory/", recursive=recursive, token="", page_size=ORIGIN_PAGE
            )
            objects, prefixes, token, first = [], [], "", True
            while token or first:
                first = False
                page = await world.catalog.list_page(
                    "s3://memory/", recursive=recursive, token=token, page_size=page_size
                )
                assert len(page.objects) + len(page.common_prefixes) <= page_size
                objects += page.objects
                prefixes += page.common_prefixes
                token = page.next_token
            assert objects == whole.objects
            assert prefixes == whole.common_prefixes

    asyncio.run(check())


@pytest.mark.parametrize("how", ["stat", "list"])
async def test_an_answer_that_was_on_its_way_when_it_was_forgotten_is_not_kept(group, how):
    world = World(group, immutable=True)
    uri = world.origin.put("a", b"old")
    asked, let = asyncio.Event(), asyncio.Event()
    name = "stat" if how == "stat" else "list_page"
    real = getattr(world.origin, name)

    async def slow(*args, **more):
        answer = await real(*args, **more)
        asked.set()
        await let.wait()
        return answer

    setattr(world.origin, name, slow)

    async def look():
        if how == "stat":
            return (await world.catalog.stat(uri)).version
        page = await world.catalog.list_page("s3://memory/", recursive=True, token="", page_size=10)
        return page.objects[0].version

    async with asyncio.TaskGroup() as looking:
        first = looking.create_task(look())
        await asked.wait()
        world.origin.put("a", b"newer")
        world.catalog.forget(uri)
        second = looking.create_task(look())
        await asyncio.sleep(0)
        let.set()
    assert (first.result(), second.result()) == ("v1", "v2")
    assert await look() == "v2"
    assert (await world.catalog.stat(uri)).version == "v2"


async def test_forgetting_an_object_or_a_prefix(group):
    world = World(group)
    uris = [world.origin.put(name, b"1") for name in ("a/1", "a/2", "b/1")]
    await world.catalog.list_page("s3://memory/", recursive=True, token="", page_size=0)
    assert world.catalog.forget(uris[2]) == 1
    assert world.catalog.forget("s3://memory/a/") == 2
    await world.catalog.stat(uris[0])
    assert world.origin.asked["HEAD"] == 1
    await world.catalog.list_page("s3://memory/", recursive=True, token="", page_size=0)
    assert world.origin.asked["LIST"] == 2


async def test_memory_is_bounded(group):
    world = World(group)
    catalog = world.new(group, entries_max=50)
    for i in range(200):
        await catalog.stat(world.origin.put(f"{i:03}", b""))
    assert len(catalog._entries) == 50
    await catalog.list_page("s3://memory/", recursive=True, token="", page_size=0)
    assert catalog._paged_entries <= 50


async def test_stat_many_answers_each_with_its_object_or_its_error(group):
    world = World(group)
    uris = [world.origin.put(f"{i}", b"x" * i) for i in range(100)]
    answers = await world.catalog.stat_many([*uris, "s3://memory/none", "nonsense"])
    assert [a.size for a in answers if isinstance(a, ObjectInfo)] == list(range(100))
    assert isinstance(answers[100], NotFound)
    assert isinstance(answers[101], InvalidRequest)


async def test_only_configured_origins_are_served(group):
    """SEMANTICS 9: only configured origins are served."""
    world = World(group)
    with pytest.raises(PermissionDenied, match=r"served: s3://memory/"):
        await world.catalog.stat("s3://other/key")
    with pytest.raises(PermissionDenied):
        await world.catalog.list_page("file:///etc/", recursive=True, token="", page_size=0)
    with pytest.raises(InvalidRequest, match="whole bucket"):
        await world.catalog.stat("s3://memory/")


@pytest.mark.parametrize("token", ["x", "o", "o5:abc", "z1:ab", "o-1:", "o99999999:"])
async def test_a_token_that_is_none_of_ours_is_refused(group, token):
    world = World(group)
    with pytest.raises(InvalidRequest, match="page token"):
        await world.catalog.list_page("s3://memory/", recursive=True, token=token, page_size=0)
