"""Where bytes come from and where they are kept, as configured: the origins and the store of a node."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from cache_server.config import Amount, OriginConfig, ServerConfig
from cache_server.core.dataset_policy import DatasetPolicy
from cache_server.metrics import Limit, Metrics
from cache_server.origins.configured import origin_of
from cache_server.origins.s3 import S3Origin
from cache_server.origins.table import Mounted
from cache_server.status import dataset_namer
from cache_server.store.options import CacheDir, Space, StoreEvents, StoreOptions
from cache_server.store.store import Store
from hotshard.core.blocks import Geometry


def new_store(
    config: ServerConfig, geometry: Geometry, metrics: Metrics, owns: Callable[[bytes], bool]
) -> Store:
    """The store, not started yet; `owns` says which shards are this node's to fetch from the origin."""
    return Store(
        [CacheDir(d.path, _space(d.capacity_bytes)) for d in config.cache_dirs],
        geometry=geometry,
        options=StoreOptions(
            free_space_floor=_space(config.free_space_floor),
            dataset_of=dataset_namer([origin.prefix for origin in config.origins]),
            new_policy=partial(DatasetPolicy, owns=owns, idle_s=config.dataset_idle_s),
        ),
        events=StoreEvents(
            sealed=metrics.sealed,
            evicted=metrics.evicted,
            quarantined=metrics.quarantined,
        ),
    )


async def open_origin(
    origin: OriginConfig, config: ServerConfig, metrics: Metrics, stack: AsyncExitStack
) -> Mounted:
    """Start one origin; the stack closes it."""
    opened = origin_of(origin, config.fetch, partial(metrics.origin_request, origin.prefix))
    await opened.start()
    stack.push_async_callback(opened.close)
    return Mounted(
        opened,
        origin.metadata_ttl_s,
        origin.immutable,
        origin.strict,
        quick=opened if isinstance(opened, S3Origin) else None,
        first=opened if isinstance(opened, S3Origin) else None,
    )


def limits(mounted: Sequence[Mounted]) -> dict[str, Limit]:
    """How the S3 origins are paced; others are not."""
    return {
        m.origin.prefix: Limit(m.origin.pace.limit, m.origin.pace.waiting, m.origin.pace.slow_downs)
        for m in mounted
        if isinstance(m.origin, S3Origin)
    }


def _space(amount: Amount) -> Space:
    return Space(size=amount.size_bytes or 0, fraction=amount.share or 0.0)
