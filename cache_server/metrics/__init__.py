"""The server's metrics: `Metrics` counts what happens, `State` says what is."""

from cache_server.metrics.events import CONTENT_TYPE, Metrics, RequestTimer
from cache_server.metrics.state import Limit, State

__all__ = ["CONTENT_TYPE", "Limit", "Metrics", "RequestTimer", "State"]
