"""The admin port over real HTTP."""

import asyncio
import json
import socket

import aiohttp
import pytest

from cache_server.admin import AdminServer
from cache_server.cluster.overview import Overviews
from cache_server.config import AdminConfig, HostPort
from cache_server.metrics import Metrics, State
from hotshard.core.errors import ConfigError
from hotshard.v1.types_pb2 import DiskStatus, StatusReply
from support.waiting import LIMIT_S


def status(*, brief: bool = False) -> StatusReply:
    return StatusReply(node_id="n1", disks=[DiskStatus(path="/nvme", used_bytes=5)])


class Scene:
    def __init__(self, port: int = 0) -> None:
        self.reason = "starting"
        self.metrics = Metrics("1")
        self.server = AdminServer(
            AdminConfig(listen=HostPort("127.0.0.1", port)),
            self.metrics,
            Overviews(status),
            lambda: self.reason,
        )

    async def get(self, path, method="GET"):
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url) as response:
            return response.status, response.headers["Content-Type"], await response.text()


@pytest.fixture
async def scene():
    found = Scene()
    await found.server.start()
    yield found
    await found.server.close()


async def test_healthz(scene):
    assert await scene.get("/healthz") == (200, "text/plain; charset=utf-8", "ok\n")


async def test_readyz_says_why_not(scene):
    status, _, text = await scene.get("/readyz")
    assert (status, text) == (503, "starting\n")
    scene.reason = ""
    status, _, text = await scene.get("/readyz")
    assert (status, text) == (200, "ok\n")


async def test_metrics_are_read_at_the_scrape(scene):
    scene.metrics.watch(lambda: State(warm_jobs=3))
    status, kind, text = await scene.get("/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert "\nhotshard_warm_jobs 3.0\n" in text
    assert "\nprocess_open_fds " in text


async def test_status_is_json_with_the_names_of_the_proto(scene):
    status, kind, text = await scene.get("/status")
    assert (status, kind) == (200, "application/json; charset=utf-8")
    reply = json.loads(text)
    assert reply["node_id"] == "n1"
    assert reply["ready"] is False
    assert reply["disks"][0]["used_bytes"] == "5"


async def test_the_page_is_html_that_may_do_nothing(scene):
    status, kind, text = await scene.get("/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    assert 'http-equiv="refresh"' in text
    assert 'http-equiv="refresh"' not in (await scene.get("/?still=1"))[2]


async def test_the_status_of_all_nodes(scene):
    _, _, text = await scene.get("/status?cluster=1")
    (node,) = json.loads(text)["nodes"]
    assert node["id"] == "n1"
    assert node["status"]["disks"][0]["path"] == "/nvme"


@pytest.mark.parametrize(
    "path", ["/index.html", "/metrics/", "/debug", "/status/x", "/%2e%2e/etc/passwd"]
)
async def test_nothing_else_is_there(scene, path):
    assert (await scene.get(path))[0] == 404


async def test_it_changes_nothing(scene):
    assert (await scene.get("/status", method="POST"))[0] == 405


async def test_a_port_in_use_is_a_mistake_of_the_configuration(scene):
    second = Scene(scene.server.port)
    with pytest.raises(ConfigError) as caught:
        await second.server.start()
    (problem,) = caught.value.problems
    assert problem == (
        f"admin.listen: cannot listen on 127.0.0.1:{scene.server.port}: Address already in use"
    )
    await second.server.close()


async def test_after_closing_nobody_listens(scene):
    port = scene.server.port
    await scene.server.close()
    await scene.server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


async def test_garbage_does_no_harm(scene):
    def shout() -> bytes:
        with socket.create_connection(("127.0.0.1", scene.server.port), timeout=LIMIT_S) as sock:
            sock.sendall(b"\x00\x01garbage\r\n\r\n")
            return sock.recv(4096)

    assert (await asyncio.to_thread(shout)).startswith(b"HTTP/1.")
    assert (await scene.get("/healthz"))[0] == 200
