"""hotshard: training data from S3 and Lustre at the speed of the local NVMe.

    import hotshard

    with hotshard.connect() as cache:
        data = cache.read("s3://bucket/key")

`hotshard.aio` has the same names for asyncio. Every error is a `HotshardError`.

A name is loaded when it is first used: parts of this package are programs of their own (the mount, the
command line), and those need little of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotshard import aio
    from hotshard.calls import (
        DatasetStatus,
        DiskStatus,
        Prefix,
        ServerStatus,
        WarmProgress,
    )
    from hotshard.client import Client, connect
    from hotshard.core.errors import (
        ConfigError,
        CorruptData,
        HotshardError,
        InternalError,
        InvalidRequest,
        NotFound,
        OriginUnavailable,
        Overloaded,
        PermissionDenied,
        ServerUnavailable,
        StaleObject,
    )
    from hotshard.core.objects import ObjectInfo
    from hotshard.files import CachedFile

__all__ = [
    "CachedFile",
    "Client",
    "ConfigError",
    "CorruptData",
    "DatasetStatus",
    "DiskStatus",
    "HotshardError",
    "InternalError",
    "InvalidRequest",
    "NotFound",
    "ObjectInfo",
    "OriginUnavailable",
    "Overloaded",
    "PermissionDenied",
    "Prefix",
    "ServerStatus",
    "ServerUnavailable",
    "StaleObject",
    "WarmProgress",
    "aio",
    "connect",
]


_PLACES = {
    **dict.fromkeys(("Client", "connect"), "client"),
    **dict.fromkeys(
        ("DatasetStatus", "DiskStatus", "Prefix", "ServerStatus", "WarmProgress"), "calls"
    ),
    "CachedFile": "files",
    "ObjectInfo": "core.objects",
}
"""Name -> module; what is not here is an error."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "aio":
        return import_module("hotshard.aio")
    found = getattr(import_module(f"hotshard.{_PLACES.get(name, 'core.errors')}"), name)
    globals()[name] = found  # so this is called once for each name
    return found
