"""Restarts: clean, unclean, another boot; what is found, and what is trusted."""

import os
import sqlite3

import pytest

from cache_server.store import layout
from cache_server.store.records import Records
from hotshard.core.blocks import Geometry
from hotshard.core.objects import ObjectInfo
from support.stores import (
    KIB,
    crash,
    fill,
    make_key,
    make_store,
    new_store,
    opened,
    report_of,
    spoiling,
)


async def test_after_an_unclean_stop_shards_are_served_after_a_check(tmp_path):
    key = make_key("s3://b/k", 100 * KIB)
    store = new_store(tmp_path)
    await store.start()
    content, _ = await fill(store, key)
    await crash(store)
    async with make_store(tmp_path) as store:
        assert store.contains(key.digest)
        assert not report_of(store, key).verified
        file = await opened(store, key)
        assert os.pread(file.fd, key.size, 0) == content
        assert report_of(store, key).verified
    async with make_store(tmp_path) as store:
        assert report_of(store, key).verified, "the check is remembered"


async def test_what_was_not_checked_stays_untrusted_over_a_clean_stop(tmp_path):
    key = make_key("s3://b/k", 100 * KIB)
    store = new_store(tmp_path)
    await store.start()
    await fill(store, key)
    await crash(store)
    async with make_store(tmp_path):
        pass
    async with make_store(tmp_path) as store:
        assert not report_of(store, key).verified


async def test_another_boot_is_an_unclean_stop(tmp_path, monkeypatch):
    key = make_key("s3://b/k", 100 * KIB)
    async with make_store(tmp_path) as store:
        await fill(store, key)
    monkeypatch.setattr(layout, "boot_id", lambda: "another boot")
    async with make_store(tmp_path) as store:
        assert not report_of(store, key).verified


@pytest.mark.parametrize("damage", ["flip", "truncate", "grow"])
async def test_a_shard_that_was_torn_is_never_served(tmp_path, damage):
    key, other = make_key("s3://b/k", 200 * KIB), make_key("s3://b/other", 10)
    store = new_store(tmp_path)
    await store.start()
    await fill(store, key)
    await fill(store, other)
    path = report_of(store, key).path
    await crash(store)
    with spoiling(path) as file:
        if damage == "flip":
            file.seek(150 * KIB)
            byte = file.read(1)
            file.seek(150 * KIB)
            file.write(bytes([byte[0] ^ 1]))
        else:
            file.truncate(100 * KIB if damage == "truncate" else 300 * KIB)
    async with make_store(tmp_path) as store:
        assert await store.open_many([key.digest, key.digest]) == [None, None]
        assert not store.contains(key.digest)
        assert store.events_seen["quarantined", "open"] == 1
        assert await store.open(other.digest) is not None
        await fill(store, key)
        assert store.cached_fd(key.digest) is not None
    assert os.listdir(tmp_path / "disk0" / "quarantine") == [key.digest.hex()]


async def test_records_without_files_and_files_without_records_go(tmp_path):
    kept, missing = make_key("s3://b/kept", 10), make_key("s3://b/missing", 10)
    store = new_store(tmp_path)
    await store.start()
    await fill(store, kept)
    await fill(store, missing)
    path = report_of(store, missing).path
    await crash(store)
    os.unlink(path)
    orphan = layout.sealed_path(str(tmp_path / "disk0"), make_key("s3://b/orphan", 5).digest)
    with open(orphan, "wb") as file:
        file.write(b"12345")
    (tmp_path / "disk0" / "partial" / "1000").write_bytes(b"x")
    async with make_store(tmp_path) as store:
        assert store.contains(kept.digest)
        assert not store.contains(missing.digest)
        assert store.disks()[0].used_bytes == 4096
        assert not os.path.exists(orphan)
        assert "1000" not in os.listdir(tmp_path / "disk0" / "partial")


async def test_a_file_that_somebody_removed_is_noticed_when_it_is_opened(tmp_path):
    key = make_key("s3://b/k", 10)
    async with make_store(tmp_path) as store:
        await fill(store, key)
        path = report_of(store, key).path
    os.unlink(path)
    async with make_store(tmp_path) as store:
        assert store.contains(key.digest)
        assert await store.open(key.digest) is None
        assert not store.contains(key.digest)
    assert store.events_seen["evicted", "missing"] == 1


async def test_a_damaged_index_is_set_aside(tmp_path):
    key = make_key("s3://b/k", 10)
    async with make_store(tmp_path) as store:
        await fill(store, key)
    (tmp_path / "disk0" / "index.db").write_bytes(b"not a database at all" * 1000)
    async with make_store(tmp_path) as store:
        assert store.disks()[0].state == "ready"
        assert not store.contains(key.digest)
        await fill(store, key)
    assert "index.db" in os.listdir(tmp_path / "disk0" / "quarantine")


async def test_other_shard_bytes_drop_what_depends_on_them(tmp_path):
    old = Geometry(shard_bytes=512 * KIB, block_bytes=64 * KIB)
    new = Geometry(shard_bytes=256 * KIB, block_bytes=64 * KIB)
    small = make_key("s3://b/small", 200 * KIB, geometry=old)
    middle = make_key("s3://b/middle", 300 * KIB, geometry=old)
    async with make_store(tmp_path, geometry=old) as store:
        await fill(store, small)
        await fill(store, middle)
    async with make_store(tmp_path, geometry=new) as store:
        assert store.contains(small.digest)
        assert not store.contains(middle.digest)
        assert await store.open(small.digest) is not None
        assert store.disks()[0].used_bytes == 200 * KIB


async def test_other_block_bytes_change_nothing_that_is_sealed(tmp_path):
    key = make_key("s3://b/k", 200 * KIB)
    store = new_store(tmp_path)
    await store.start()
    await fill(store, key)
    await crash(store)
    geometry = Geometry(shard_bytes=4 << 20, block_bytes=1 << 20)
    async with make_store(tmp_path, geometry=geometry) as store:
        assert await store.open(key.digest) is not None


async def test_of_two_records_of_a_shard_the_later_counts(tmp_path):
    key = make_key("s3://b/k", 10)
    async with make_store(tmp_path) as store:
        await fill(store, key)
    db = sqlite3.connect(tmp_path / "disk0" / "index.db")
    with db:
        db.execute(
            "INSERT INTO shards SELECT NULL, digest, uri, version, shard, size, object_size,"
            " mtime_ns, algorithm, block_bytes, sums, generation FROM shards"
        )
    db.close()
    async with make_store(tmp_path) as store:
        assert await store.open(key.digest) is not None
        assert store.disks()[0].shards == 1
    records = Records(str(tmp_path / "disk0" / "index.db"))
    assert [row.row for row in records.load(0)] == [2]
    records.close()


async def test_recall_knows_objects_after_a_restart(tmp_path):
    async with make_store(tmp_path) as store:
        await fill(store, make_key("s3://b/k", 10))
    async with make_store(tmp_path) as store:
        info = await store.recall("s3://b/k")
        assert info == ObjectInfo("s3://b/k", "v1", 10, 1)
        assert await store.recall("s3://b/") is None
