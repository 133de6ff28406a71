"""What names a shard in the store."""

from dataclasses import dataclass

from hotshard.core.blocks import Geometry, shard_digest
from hotshard.core.objects import ObjectInfo


@dataclass(frozen=True, slots=True)
class ShardKey:
    """One shard of one object version."""

    digest: bytes
    """16 bytes, see hotshard.core.blocks.shard_digest."""
    uri: str
    version: str
    index: int
    size: int
    """Bytes of this shard."""
    object_size: int
    mtime_ns: int

    @classmethod
    def of(cls, info: ObjectInfo, index: int, geometry: Geometry) -> "ShardKey":
        """The key of shard `index` of an object."""
        return cls(
            digest=shard_digest(info.uri, info.version, index),
            uri=info.uri,
            version=info.version,
            index=index,
            size=geometry.shard_size(info.size, index),
            object_size=info.size,
            mtime_ns=info.mtime_ns,
        )
