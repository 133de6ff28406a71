"""The admin port: plain HTTP for probes, Prometheus and people. It changes nothing.

`/` is the status page, /status the same as JSON (of all members: /status?cluster=1). /healthz answers while
the event loop turns; /readyz says why when the node should get no traffic.
"""

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any, Protocol

from aiohttp import web
from google.protobuf import json_format

from cache_server import page
from cache_server.cluster.overview import Overview
from cache_server.config import AdminConfig
from cache_server.metrics import CONTENT_TYPE, Metrics
from hotshard.core.errors import ConfigError
from hotshard.v1.types_pb2 import StatusReply

_AS_JSON: dict[str, Any] = {
    "preserving_proto_field_name": True,
    "always_print_fields_with_no_presence": True,
}
_STOP_S = 1.0
"""How long answers under way may take when the port closes."""


class Overviews(Protocol):
    """Who knows how this node is, and how all of them are (cluster/overview.py)."""

    def status(self) -> StatusReply:
        """The full report of this node."""

    async def of_all(self) -> Overview:
        """All members, at most a second old."""


class AdminServer:
    """One listening admin port."""

    def __init__(
        self,
        config: AdminConfig,
        metrics: Metrics,
        overviews: Overviews,
        unready: Callable[[], str],
    ) -> None:
        """Make it.

        Args:
            config: where to listen.
            metrics: what /metrics shows.
            overviews: what / and /status show.
            unready: why the node is not ready; empty: it is.
        """
        self._listen = config.listen
        self._metrics = metrics
        self._overviews = overviews
        self._unready = unready
        self._runner: web.AppRunner | None = None
        self._pages: dict[bool, tuple[Overview, str]] = {}
        self.port = 0
        """The port it listens on, once started."""

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the address cannot be bound.
        """
        app = web.Application(client_max_size=1024)
        app.router.add_get("/", self._get_page)
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

    async def _get_page(self, request: web.Request) -> web.Response:
        overview, still = await self._overviews.of_all(), "still" in request.query
        kept = self._pages.get(still)
        if kept is None or kept[0] is not overview:
            text = await asyncio.to_thread(page.render, overview, still=still)
            self._pages[still] = kept = overview, text
        text = kept[1]
        return web.Response(text=text, content_type="text/html", headers=page.HEADERS)

    async def _get_status(self, request: web.Request) -> web.Response:
        if "cluster" in request.query:
            text = _cluster_json(await self._overviews.of_all())
        else:
            text = json_format.MessageToJson(self._overviews.status(), **_AS_JSON)
        return web.Response(text=f"{text}\n", content_type="application/json")


def _cluster_json(overview: Overview) -> str:
    """One document: the cluster, and each node with its status or the reason why there is none."""
    nodes: list[dict[str, Any]] = []
    for node in overview.nodes:
        entry = json_format.MessageToDict(node.member, **_AS_JSON)
        if node.said is None:
            entry["error"] = node.error
        else:
            entry["status"] = json_format.MessageToDict(node.said, **_AS_JSON)
        nodes.append(entry)
    return json.dumps(
        {
            "at_s": overview.at_s,
            "cluster": overview.name,
            "me": overview.me,
            "slots": overview.slots,
            "nodes": nodes,
        }
    )
