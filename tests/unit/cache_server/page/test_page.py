"""The status page as a document, and in a real browser."""

import asyncio
import contextlib
import re
import threading
from html.parser import HTMLParser

import pytest

from cache_server.admin import AdminServer
from cache_server.cluster.overview import NodeView, Overview
from cache_server.config import AdminConfig, HostPort
from cache_server.metrics import Metrics
from cache_server.page import HEADERS, render
from hotshard.v1 import types_pb2 as pb
from support.browser import browser
from support.overviews import EVIL, busy_overview

VOID = {"meta", "link", "br"}


class Outline(HTMLParser):
    """Tags that are open, all that was seen, and the text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text, self.attributes = [], set(), [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline(overview, **options):
    found = Outline()
    found.feed(render(overview, **options))
    found.close()
    assert found.open == []
    return found


def test_it_is_well_formed_and_has_no_script():
    found = outline(busy_overview())
    assert found.tags <= {
        *("html", "head", "meta", "link", "title", "style", "body", "main", "header", "footer"),
        *("h1", "h2", "section", "div", "span", "small", "b", "i", "a", "code", "br"),
        *("table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "path"),
    }
    assert not [name for name in found.attributes if name.startswith("on") or name == "style"]


def test_names_are_text():
    found = outline(busy_overview())
    assert EVIL in "".join(found.text)


def test_it_says_what_needs_a_look():
    text = "".join(outline(busy_overview()).text)
    assert "6 of 8 nodes ready, 2 zones" in text
    assert "/mnt/nvme1 is failed: Input/output error" in text
    assert "connection refused" in text


def test_resident_is_what_every_zone_has():
    text = "".join(outline(busy_overview()).text)
    # Zone a has four nodes, zone b three that answer, with 350 GiB of their own each, of 1100 GiB.
    assert "1.1 TiB95.5%" in text
    assert "streaming" in text


def test_a_node_on_its_own_that_has_just_started():
    said = pb.StatusReply(node_id="n" * 32, version="1", ready=True)
    member = pb.Member(id=said.node_id, state="ready")
    found = outline(Overview(at_s=1e9, nodes=[NodeView(member, said)], me=said.node_id))
    text = "".join(found.text)
    assert "1 of 1 nodes ready" in text
    assert "Nothing is cached yet." in text
    assert "Needs a look" not in text


def test_nobody_answers():
    member = pb.Member(id="x", state="lost")
    overview = Overview(at_s=1e9, nodes=[NodeView(member, error="gone")], me="y")
    assert "gone" in "".join(outline(overview).text)


def test_many_nodes_stay_a_page():
    assert len(render(busy_overview(1000))) < 400_000


def test_the_policy_allows_nothing_but_its_own_style():
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "script-src" not in policy


# -- in a browser ----------------------------------------------------------------------------------


class Busy:
    def status(self, *, brief=False):
        return busy_overview().nodes[0].said

    async def of_all(self):
        return busy_overview()


@pytest.fixture
def url():
    """A real admin port, on a loop of its own: the browser is driven from this thread."""
    loop = asyncio.new_event_loop()
    config = AdminConfig(listen=HostPort("127.0.0.1", 0))
    server = AdminServer(config, Metrics("1"), Busy(), lambda: "")
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield f"http://127.0.0.1:{server.port}/?still=1"
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        with contextlib.closing(loop):
            loop.run_until_complete(loop.shutdown_default_executor())


OVERFLOWING = """
return [...document.querySelectorAll('main *')].filter(e =>
  !e.closest('svg') && !e.closest('.scroll') && e.getBoundingClientRect().right > innerWidth + 1
).map(e => e.outerHTML.slice(0, 80))
"""
SMALL = """
return [...document.querySelectorAll('td, th, span, div, a')].filter(e =>
  e.childNodes.length && parseFloat(getComputedStyle(e).fontSize) < 12).length
"""
CLIPPED = """
return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1)
  .map(e => e.closest('section').querySelector('h2').textContent)
"""


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_looks_right_in_a_browser(url, tmp_path, width, dark):
    with browser(tmp_path, width=width, dark=dark) as window:
        window.open(url)
        window.screenshot(tmp_path / "page.png")
        assert window.run("return document.title") == "train-eu: status"
        assert window.complaints() == []
        assert window.run("return document.scripts.length") == 0
        assert window.run(OVERFLOWING) == []
        assert window.run(CLIPPED) == []
        assert window.run(SMALL) == 0
        assert window.run("return performance.getEntriesByType('resource').length") == 0
        back = window.run("return getComputedStyle(document.body).backgroundColor")
        darkness = [int(part) < 64 for part in re.findall(r"\d+", back)[:3]]
        assert all(darkness) if dark else not any(darkness)
        assert (tmp_path / "page.png").stat().st_size > 10_000


def test_an_injected_script_would_not_run(url, tmp_path, monkeypatch):
    """Even if escaping failed once: the policy stands behind it."""
    from cache_server.page import markup

    monkeypatch.setattr(markup, "escape", lambda text, quote=True: text)
    with browser(tmp_path, width=1280) as window:
        window.open(url)
        assert window.run("return document.scripts.length") > 0
        assert window.run("return document.title") != "owned"
        assert any("Content Security Policy" in entry for entry in window.complaints())
