"""The admin port: plain HTTP for probes, Prometheus and people. It changes nothing.

/healthz answers while the event loop turns; /readyz says why when the node should get no traffic.
"""

import asyncio
import os
from collections.abc import Callable

from aiohttp import web
from google.protobuf import json_format

from cache_server.config import AdminConfig
from cache_server.metrics import CONTENT_TYPE, Metrics
from hotshard.core.errors import ConfigError
from hotshard.v1.types_pb2 import StatusReply

_STOP_S = 1.0
"""How long answers under way may take when the port closes."""


class AdminServer:
    """One listening admin port."""

    def __init__(
        self,
        config: AdminConfig,
        metrics: Metrics,
        status: Callable[[], StatusReply],
        unready: Callable[[], str],
    ) -> None:
        """Make it.

        Args:
            config: where to listen.
            metrics: what /metrics shows.
            status: what /status shows.
            unready: why the node is not ready; empty: it is.
        """
        self._listen = config.listen
        self._metrics = metrics
        self._status = status
        self._unready = unready
        self._runner: web.AppRunner | None = None
        self.port = 0
        """The port it listens on, once started."""

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be bound.
        """
        app = web.Application(client_max_size=1024)
        app.router.add_get("/metrics", self._get_metrics)
        app.router.add_get("/healthz", self._get_healthz)
        app.router.add_get("/readyz", self._get_readyz)
        app.router.add_get("/status", self._get_status)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_STOP_S)
        await runner.setup()
        site = web.TCPSite(runner, self._listen.host, self._listen.port)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            reason = os.strerror(error.errno) if error.errno else str(error)
            problem = f"admin.listen: cannot listen on {self._listen}: {reason}"
            raise ConfigError([problem]) from error
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening; idempotent."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _get_metrics(self, _: web.Request) -> web.Response:
        self._metrics.refresh()
        body = await asyncio.to_thread(self._metrics.exposition)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def _get_healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _get_readyz(self, _: web.Request) -> web.Response:
        reason = self._unready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def _get_status(self, _: web.Request) -> web.Response:
        text = json_format.MessageToJson(
            self._status(),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        return web.Response(text=f"{text}\n", content_type="application/json")
