"""The server's configuration: `load` gives a ServerConfig, or a ConfigError with every mistake."""

from cache_server.config.model import (
    AdminConfig,
    BulkConfig,
    CacheDirConfig,
    ClusterConfig,
    FetchConfig,
    GrpcConfig,
    GrpcTlsConfig,
    LocalSocketConfig,
    LogConfig,
    OriginConfig,
    PricesConfig,
    ServerConfig,
    TlsConfig,
)
from cache_server.config.source import default_paths, load
from cache_server.config.units import Amount, HostPort, format_size, parse_size

__all__ = [
    "AdminConfig",
    "Amount",
    "BulkConfig",
    "CacheDirConfig",
    "ClusterConfig",
    "FetchConfig",
    "GrpcConfig",
    "GrpcTlsConfig",
    "HostPort",
    "LocalSocketConfig",
    "LogConfig",
    "OriginConfig",
    "PricesConfig",
    "ServerConfig",
    "TlsConfig",
    "default_paths",
    "format_size",
    "load",
    "parse_size",
]
