"""The status page as a whole: what is on it, and in which order. Pure: an Overview in, a document out.

It has no script: it is made anew for each look, and reloads itself. All that it shows is escaped
(markup.py), and its Content-Security-Policy allows its own style sheet and nothing else.
"""

import base64
import hashlib
import time
from importlib.resources import files

from cache_server.cluster.overview import Overview
from cache_server.core.trend import Interval, Totals, intervals, summed
from cache_server.page import sections
from cache_server.page.datasets import datasets
from cache_server.page.markup import Html, count, element, joined
from hotshard.v1 import types_pb2 as pb

REFRESH_S = 5
INTERVAL_S = 60.0
INTERVALS = 60

STYLE = files("cache_server.page").joinpath("style.css").read_text()
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def render(overview: Overview, *, still: bool = False) -> str:
    """The document; `still`: it does not reload itself."""
    by_node = {
        node.member.id: _intervals(node.said, overview.at_s)
        for node in overview.nodes
        if node.said is not None
    }
    trend = summed(list(by_node.values()))
    body = element(
        "main",
        _header(overview, still=still),
        sections.figures(overview, trend),
        sections.trends(trend),
        sections.troubles(overview),
        sections.nodes(overview, by_node),
        datasets(overview),
        element("div", sections.filling(overview), sections.jobs(overview), class_="pair"),
        element("div", sections.members(overview), sections.money(overview), class_="pair"),
        _footer(overview),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        "" if still else element("meta", http_equiv="refresh", content=REFRESH_S),
        element("link", rel="icon", href="data:,"),
        element("title", f"{overview.name or 'hotshard'}: status"),
        element("style", Html(STYLE)),
    )
    return f"<!doctype html>{element('html', joined((head, element('body', body))), lang='en')}"


def _intervals(said: pb.StatusReply, now_s: float) -> list[Interval]:
    history = [
        Totals(s.at_s, s.hit_bytes, s.asked_bytes, s.peer_bytes, s.origin_bytes)
        for s in said.history
    ]
    return intervals(history, now_s, length_s=INTERVAL_S, count=INTERVALS)


def _header(overview: Overview, *, still: bool) -> Html:
    answered = [node for node in overview.nodes if node.said is not None]
    ready = sum(node.said is not None and node.said.ready for node in answered)
    zones = {node.member.zone for node in overview.nodes}
    words = [f"{ready} of {len(overview.nodes)} nodes ready"]
    if len(zones) > 1:
        words.append(f"{count(len(zones))} zones")
    versions = sorted({node.said.version for node in answered if node.said is not None})
    words.append("version " + ", ".join(versions) if versions else "")
    clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(overview.at_s))
    switch = ("/", "reload by itself") if still else ("/?still=1", "hold still")
    return element(
        "header",
        element("h1", overview.name or "hotshard"),
        element("span", ", ".join(word for word in words if word), class_="quiet grow"),
        element("span", clock, " · ", element("a", switch[1], href=switch[0]), class_="quiet"),
    )


def _footer(overview: Overview) -> Html:
    links = [
        element("a", name, href=href)
        for name, href in (
            ("status as JSON", "/status?cluster=1"),
            ("of this node", "/status"),
            ("metrics", "/metrics"),
        )
    ]
    return element(
        "footer",
        "Seen by node ",
        element("code", overview.me[:8]),
        ". ",
        joined(part for link in links for part in (link, " · ")),
        "figures of rates and ratios: the last 5 minutes; pictures: the last hour.",
    )
