"""The watch of EndpointSlices, against a server that speaks the real wire format."""

import asyncio
from contextlib import aclosing

import pytest

from cache_server.cluster.providers import kubernetes
from cache_server.cluster.providers.endpoints import BadSlice
from cache_server.cluster.providers.kubernetes import KubernetesOptions, KubernetesProvider
from hotshard.core.backoff import Backoff
from hotshard.core.errors import ConfigError
from support.kube_api import NAMESPACE, SERVICE, KubeApi, endpoint, slice_of
from support.waiting import comes

QUICK = Backoff(attempts=100, initial_s=0.02, cap_s=0.1)


@pytest.fixture
async def api(tmp_path):
    server = KubeApi(tmp_path)
    await server.start()
    yield server
    await server.stop()


class Follower:
    """Keeps what the provider said last."""

    def __init__(self, api, **options):
        more = {"service": SERVICE, "url": api.url, "account": str(api.account), **options}
        self.provider = KubernetesProvider(KubernetesOptions(**more), {}, lambda: 0.5, QUICK)
        self.last = None

    async def run(self):
        async with aclosing(self.provider.lists()) as lists:
            async for candidates in lists:
                self.last = {c.address.removesuffix(":7070"): c.serving for c in candidates}

    async def sees(self, **expected):
        wanted = {name.replace("_", ".").removeprefix("ip"): v for name, v in expected.items()}
        await comes(lambda: self.last == wanted)


@pytest.fixture
async def follower(api):
    api.put(slice_of("a", [endpoint("10.0.0.1"), endpoint("10.0.0.2")]))
    async with asyncio.TaskGroup() as group:
        follower = Follower(api)
        task = group.create_task(follower.run())
        await follower.sees(ip10_0_0_1=True, ip10_0_0_2=True)
        await watching(api)
        yield follower
        task.cancel()


def warned(caplog):
    return [r for r in caplog.records if r.levelname == "WARNING"]


async def watching(api, more_than=0):
    await comes(lambda: api.watching and api.watches > more_than)


async def test_scale_out_and_in(api, follower):
    api.put(slice_of("b", [endpoint("10.0.0.3")]))
    await follower.sees(ip10_0_0_1=True, ip10_0_0_2=True, ip10_0_0_3=True)
    api.put(slice_of("a", [endpoint("10.0.0.1")]))
    await follower.sees(ip10_0_0_1=True, ip10_0_0_3=True)
    api.delete("b")
    await follower.sees(ip10_0_0_1=True)
    assert (api.lists, api.watches) == (1, 1)


async def test_readiness_flaps(api, follower):
    for ready in (False, True, False, True):
        api.put(slice_of("a", [endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=ready)]))
        await follower.sees(ip10_0_0_1=True, ip10_0_0_2=ready)


async def test_a_pod_that_terminates(api, follower):
    leaving = endpoint("10.0.0.2", ready=False, serving=True, terminating=True)
    api.put(slice_of("a", [endpoint("10.0.0.1"), leaving]))
    await follower.sees(ip10_0_0_1=True, ip10_0_0_2=False)
    gone = endpoint("10.0.0.2", ready=False, serving=False, terminating=True)
    api.put(slice_of("a", [endpoint("10.0.0.1"), gone]))
    await follower.sees(ip10_0_0_1=True)


async def test_a_broken_stream_goes_on_where_it_was(api, follower):
    before = api.watches
    api.break_streams()
    api.put(slice_of("b", [endpoint("10.0.0.3")]))  # nobody is watching
    await watching(api, more_than=before)
    await follower.sees(ip10_0_0_1=True, ip10_0_0_2=True, ip10_0_0_3=True)
    assert api.lists == 1


async def test_half_an_event_is_asked_for_again(api, follower):
    before = api.watches
    api.cut_events = 2
    api.put(slice_of("b", [endpoint("10.0.0.3")]))
    await follower.sees(ip10_0_0_1=True, ip10_0_0_2=True, ip10_0_0_3=True)
    assert api.watches == before + 2
    assert api.lists == 1


async def test_bookmarks_save_a_new_list(api, follower):
    before = api.watches
    api.bookmark()
    api.put(slice_of("b", []))
    await follower.sees(ip10_0_0_1=True, ip10_0_0_2=True)
    api.break_streams()
    await watching(api, more_than=before)
    assert api.lists == 1


async def test_gone_means_listing_again(api, follower):
    api.compact()
    api.break_streams()
    api._slices["a"] = slice_of("a", [endpoint("10.0.0.9")])
    api._slices["a"]["metadata"]["resourceVersion"] = "1"
    await follower.sees(ip10_0_0_9=True)
    assert api.lists == 2


async def test_while_the_server_is_away_the_last_list_holds(api, follower, caplog):
    await api.stop()
    await comes(lambda: warned(caplog))
    await asyncio.sleep(0.3)  # a few attempts more, of which nothing is said
    assert follower.last == {"10.0.0.1": True, "10.0.0.2": True}
    api.put(slice_of("a", [endpoint("10.0.0.2")]))
    await api.start()
    await follower.sees(ip10_0_0_2=True)
    assert len(warned(caplog)) == 1


async def test_a_rotated_token_is_read_anew(api, follower):
    api.rotate_token("token-2")
    api.break_streams()
    api.put(slice_of("a", [endpoint("10.0.0.2")]))
    await follower.sees(ip10_0_0_2=True)


async def test_a_bad_token_is_tried_until_it_is_good(api):
    api.put(slice_of("a", [endpoint("10.0.0.1")]))
    token = (api.account / "token").read_text()
    (api.account / "token").write_text("stale")
    async with asyncio.TaskGroup() as group:
        follower = Follower(api)
        task = group.create_task(follower.run())
        await asyncio.sleep(0.2)
        assert follower.last is None
        (api.account / "token").write_text(token)
        await follower.sees(ip10_0_0_1=True)
        task.cancel()


async def test_lists_come_in_pages(api):
    api.page_slices = 2
    for i in range(5):
        api.put(slice_of(f"s{i}", [endpoint(f"10.0.0.{i}")]))
    async with asyncio.TaskGroup() as group:
        follower = Follower(api, namespace=NAMESPACE)
        task = group.create_task(follower.run())
        await follower.sees(**{f"ip10_0_0_{i}": True for i in range(5)})
        assert api.lists == 3
        task.cancel()


async def test_a_list_that_is_forgotten_between_two_pages_begins_again(api):
    api.page_slices = 2
    api.forget_pages = 2
    for i in range(5):
        api.put(slice_of(f"s{i}", [endpoint(f"10.0.0.{i}")]))
    async with asyncio.TaskGroup() as group:
        follower = Follower(api)
        task = group.create_task(follower.run())
        await follower.sees(**{f"ip10_0_0_{i}": True for i in range(5)})
        assert api.forget_pages == 0
        task.cancel()


async def test_a_slice_of_many_endpoints_fits(api, follower):
    many = [endpoint(f"10.1.{i // 250}.{i % 250}") for i in range(1000)]
    api.put(slice_of("b", many))
    await comes(lambda: len(follower.last) == 1002)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": {}}',
        b'{"type": "NEW", "object": {"metadata": {"resourceVersion": "1"}}}',
        b'{"type": "ERROR", "object": {"code": 500, "message": "etcd"}}',
        b'{"type": "ERROR", "object": []}',
        b"\xff",
    ],
)
def test_events_that_are_none(line):
    with pytest.raises(BadSlice):
        kubernetes._event(line)


def test_where_the_server_is():
    options = KubernetesOptions(service="hotshard")

    def url(host):
        environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
        return KubernetesProvider(options, environ, lambda: 0.5)._url

    assert url("10.0.0.1") == "https://10.0.0.1:443"
    assert url("fd00::1") == "https://[fd00::1]:443"
    with pytest.raises(ConfigError, match="works in a pod only"):
        KubernetesProvider(options, {}, lambda: 0.5)
