"""The key of a shard."""

from cache_server.store.shard import ShardKey
from hotshard.core.blocks import Geometry, shard_digest
from hotshard.core.objects import ObjectInfo


def test_key_of_the_last_shard():
    info = ObjectInfo("s3://b/k", "v", 250, 7)
    key = ShardKey.of(info, 2, Geometry(shard_bytes=100, block_bytes=10))
    assert key == ShardKey(shard_digest("s3://b/k", "v", 2), "s3://b/k", "v", 2, 50, 250, 7)
