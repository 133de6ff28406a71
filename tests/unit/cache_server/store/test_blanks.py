"""Blank files at hand."""

import asyncio
import os
import resource

import pytest

from cache_server.store import drops
from cache_server.store.volume import BLANKS
from support.stores import make_key, new_store, until


async def test_one_is_at_hand_for_each_of_many(tmp_path):
    store = new_store(tmp_path)
    await store.start()
    partials = await asyncio.gather(
        *(store.begin(make_key(f"s3://b/{i}", 10)) for i in range(3 * BLANKS))
    )
    assert len({partial.path for partial in partials}) == 3 * BLANKS
    assert all(os.path.exists(partial.path) for partial in partials)
    await store.close()


async def test_beginning_at_once_needs_a_blank_file_and_room(tmp_path):
    store = new_store(tmp_path, capacity=1 << 20)
    await store.start()
    key = make_key("s3://b/k", 100)
    assert store.begin_now(key) is None  # none is made yet
    first = await store.begin(key)
    used = store.disks()[0].partial_bytes
    second = store.begin_now(key)
    assert second is not None
    assert second.path != first.path
    assert store.disks()[0].partial_bytes == 2 * used
    assert store.begin_now(make_key("s3://b/large", 2 << 20)) is None
    assert store.disks()[0].partial_bytes == 2 * used
    await store.close()


@pytest.mark.parametrize(("open_files", "kept"), [(1024, 32), (65_536, 192), (-1, 192)])
async def test_as_many_are_kept_at_hand_as_a_burst_takes_and_open_files_allow(
    tmp_path, monkeypatch, open_files, kept
):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (open_files, open_files))
    store = new_store(tmp_path)
    await store.start()
    for i in range(6):
        await store.begin(make_key(f"s3://b/{i}", 10))
        await until(lambda: store._disks.all[0].volume.blanking is None)
    assert kept <= store._disks.all[0].volume.blanks < kept + BLANKS
    await store.close()


async def test_free_space_is_looked_at_before_a_beginning_would_have_to_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(drops, "LOOK_INTERVAL_S", 1000.0)
    store = new_store(tmp_path)
    await store.start()
    await store.begin(make_key("s3://b/first", 10))
    volume = store._disks.all[0].volume
    volume.looked_at = volume.now() - 400
    assert store.begin_now(make_key("s3://b/1", 10))
    assert volume.now() - volume.looked_at >= 400
    volume.looked_at, volume.free_bytes = volume.now() - 600, -1
    assert store.begin_now(make_key("s3://b/2", 10))
    await until(lambda: volume.free_bytes >= 0)
    assert volume.now() - volume.looked_at < 400
    volume.looked_at = volume.now() - 1100
    assert store.begin_now(make_key("s3://b/3", 10)) is None  # it was out of date
    await store.close()
