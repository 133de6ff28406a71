"""hotshard: training data from S3 and Lustre at the speed of the local NVMe.

    import hotshard

    with hotshard.connect() as cache:
        data = cache.read("s3://bucket/key")

`hotshard.aio` has the same names for asyncio. Every error is a `HotshardError`.
"""

from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from hotshard import aio

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


def __getattr__(name: str) -> Any:
    if name == "aio":  # loads asyncio, which takes longer than all the rest
        from importlib import import_module

        return import_module("hotshard.aio")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
