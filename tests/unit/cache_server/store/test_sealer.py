"""The thread of a disk."""

import asyncio
import errno
import threading

from cache_server.store.records import Records
from cache_server.store.sealer import BATCH_MAX, Note, Sealer
from support.stores import KIB, fill, make_key, make_store, until


class Bench:
    """A sealer that can be held up, so that jobs queue."""

    def __init__(self, tmp_path):
        self.records = Records(str(tmp_path / "index.db"))
        self.sealer = Sealer(self.records, asyncio.get_running_loop(), "test")
        self.gate = threading.Event()
        self.delivered: list[tuple[object, int | None]] = []

    def note(self, name, write=lambda _records: None):
        job = Note(write=write)
        job.delivered = lambda: self.delivered.append(
            (name, job.error.errno if job.error else None)
        )
        self.sealer.submit(job)

    async def close(self):
        await asyncio.to_thread(self.sealer.close)
        await until(lambda: True)
        self.records.close()


async def test_jobs_that_queue_share_a_transaction_and_keep_their_order(tmp_path):
    bench = Bench(tmp_path)
    bench.note("held", lambda _: bench.gate.wait())
    changes = bench.records._db.total_changes
    for n in range(BATCH_MAX):
        bench.note(n, lambda records, n=n: records.set_fact("last", str(n)))
    bench.gate.set()
    await until(lambda: len(bench.delivered) == BATCH_MAX + 1)
    assert bench.delivered == [(name, None) for name in ["held", *range(BATCH_MAX)]]
    assert bench.records.fact("last") == str(BATCH_MAX - 1)
    assert bench.records._db.total_changes > changes
    await bench.close()


async def test_one_that_fails_does_not_take_the_batch_along(tmp_path):
    def fail(_records):
        raise OSError(errno.ENOSPC, "full")

    bench = Bench(tmp_path)
    bench.note("held", lambda _: bench.gate.wait())
    bench.note("a", lambda records: records.set_fact("a", "1"))
    bench.note("bad", fail)
    bench.note("b", lambda records: records.set_fact("b", "1"))
    bench.gate.set()
    await until(lambda: len(bench.delivered) == 4)
    assert bench.delivered[1:] == [("a", None), ("bad", errno.ENOSPC), ("b", None)]
    assert (bench.records.fact("a"), bench.records.fact("b")) == ("1", "1")
    await bench.close()


async def test_close_finishes_what_is_queued(tmp_path):
    bench = Bench(tmp_path)
    for n in range(10):
        bench.note(n)
    await bench.close()
    assert [name for name, _ in bench.delivered] == list(range(10))


async def test_a_seal_whose_caller_has_gone_is_kept(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/k", 100 * KIB)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(fill(store, key))
            await until(lambda: store.disks()[0].partial_bytes > 0)
            task.cancel()
        await until(lambda: store.disks()[0].partial_bytes == 0)
        if store.contains(key.digest):
            assert await store.open(key.digest) is not None
        await fill(store, make_key("s3://b/next", 10))


async def test_a_shard_dropped_and_filled_again_keeps_its_new_file(tmp_path):
    async with make_store(tmp_path) as store:
        key = make_key("s3://b/k", 100 * KIB)
        await fill(store, key)
        for _ in range(20):
            async with asyncio.TaskGroup() as group:
                group.create_task(store.evict("s3://b/k", include_pinned=False))
                await until(lambda: not store.contains(key.digest))
                group.create_task(fill(store, key))
            assert await store.open(key.digest) is not None
    async with make_store(tmp_path) as store:
        assert await store.open(key.digest) is not None
