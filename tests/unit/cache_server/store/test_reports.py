"""The report about datasets."""

from support.stores import KIB, fill, make_key, make_store


async def test_what_is_sealed_and_what_was_streamed(tmp_path):
    async with make_store(tmp_path, disks=2, capacity=1 << 20) as store:
        for n in range(30):
            key = make_key(f"s3://b/x/{n}", 100 * KIB)
            if store.wants(key):
                await fill(store, key)
        small = make_key("s3://b/y/0", 1 * KIB)
        store.wants(small)
        await fill(store, small)
        x, y = store.datasets()
        assert (x.name, x.shards, x.bytes) == ("s3://b/x/", 20, 2000 * KIB)
        assert (x.active, x.streaming, x.streamed_shards) == (True, True, 10)
        assert x.streamed_bytes == 10 * 100 * KIB
        assert (y.name, y.shards, y.active, y.streaming) == ("s3://b/y/", 1, True, False)


async def test_a_dataset_that_is_only_streamed_is_reported(tmp_path):
    async with make_store(tmp_path, capacity=1 << 20) as store:
        for n in range(10):
            await fill(store, make_key(f"s3://b/x/{n}", 100 * KIB))
        assert not store.wants(make_key("s3://b/y/0", 900 * KIB))
        assert [(d.name, d.shards, d.streamed_shards) for d in store.datasets()] == [
            ("s3://b/x/", 10, 0),
            ("s3://b/y/", 0, 1),
        ]
