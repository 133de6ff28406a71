"""The parts of the status page, each from an Overview. Pure.

What needs somebody's attention is said in words and coloured; what is well is quiet.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from cache_server.cluster.overview import NodeView, Overview
from cache_server.core.trend import Interval, over
from cache_server.page.chart import bar, columns, ratio_line
from cache_server.page.markup import (
    Html,
    count,
    duration,
    element,
    joined,
    percent,
    size,
)
from cache_server.page.markup import money as usd
from cache_server.page.tables import Cells, nothing, section, table
from hotshard.v1 import types_pb2 as pb

RECENT = 5
"""Intervals (minutes) that rates and ratios are of."""
ROWS_MAX = 100
SLOW_FACTOR = 5.0
SLOW_S = 0.05


def figures(overview: Overview, trend: Sequence[Interval]) -> Html:
    """The numbers that one looks for first."""
    said = _said(overview)
    recent = over(trend[-RECENT:])
    used = sum(disk.used_bytes for status in said for disk in status.disks)
    capacity = sum(disk.capacity_bytes for status in said for disk in status.disks)
    saved = sum(status.money.saved_usd for status in said)
    gets = sum(status.money.avoided_requests["GET"] for status in said)
    seconds = max((_watched_s(status) for status in said), default=1.0)
    asked_rate = recent.asked_bytes / seconds
    origin_rate = recent.origin_bytes / seconds
    return element(
        "section",
        _figure("hit ratio", percent(recent.hit_ratio), "of bytes asked for"),
        _figure("served", f"{size(asked_rate)}/s", "to readers"),
        _figure("from origins", f"{size(origin_rate)}/s", "S3, file systems"),
        _figure("cached", size(used), f"of {size(capacity)}"),
        _figure("saved", usd(saved), f"{count(gets)} GETs avoided"),
        class_="figures",
    )


def _figure(name: str, value: str, remark: str) -> Html:
    return element("div", element("span", name), element("b", value), element("i", remark))


def trends(trend: Sequence[Interval]) -> Html:
    """The last hour."""
    pictures, top = columns(trend)
    keys = [
        element("span", element("span", name), class_=f"key {source}")
        for source, name in (
            ("local", "found here"),
            ("peer", "members"),
            ("origin", "origins"),
        )
    ]
    axis = element(
        "div",
        element("span", f"{round(sum(each.length_s for each in trend) / 60)} min ago"),
        element("span", "now"),
        class_="axis",
    )
    return element(
        "div",
        element(
            "section",
            element("h2", "Hit ratio", element("small", "0 to 100%")),
            ratio_line(trend),
            axis,
        ),
        element(
            "section",
            element("h2", "Bytes by source", element("small", f"up to {size(top)}/s ", *keys)),
            pictures,
            axis,
        ),
        class_="pair",
    )


def troubles(overview: Overview) -> Html:
    """What somebody should look at."""
    found = [(node, text) for node in overview.nodes for text in _troubles(node, overview)]
    if not found:
        return Html("")
    rows = [
        (
            element("code", _short(node.member.id)),
            node.member.grpc,
            element("span", text, class_="bad"),
        )
        for node, text in found[:ROWS_MAX]
    ]
    return section(
        "Needs a look", table([("node", ""), ("address", "wide"), ("what", "name")], rows)
    )


def _troubles(node: NodeView, overview: Overview) -> list[str]:
    said = node.said
    if said is None:
        return [node.error.partition(" (")[0][:200]]
    words = [] if said.ready else ["not ready"]
    words += [f"{d.path} is {d.state}: {d.detail}" for d in said.disks if d.state != "ready"]
    mine = next((n.said for n in overview.nodes if n.member.id == overview.me), None)
    if (
        mine is not None
        and said.cluster.me.zone == mine.cluster.me.zone
        and said.cluster.view_version != mine.cluster.view_version
    ):
        words.append("sees other members than this node does")
    return words


def nodes(overview: Overview, by_node: Mapping[str, Sequence[Interval]]) -> Html:
    """One row for each node."""
    heads = [
        *(
            ("node", "nowrap"),
            ("zone", "wide"),
            ("state", ""),
            ("up", "number wide"),
            ("hit ratio", "number"),
        ),
        *(("served", "number"), ("cached", "number"), ("", "wide"), ("slots", "number wide")),
        ("address", "wide"),
    ]
    rows = [_node_row(node, overview, by_node) for node in overview.nodes[:ROWS_MAX]]
    owned = [n.said.cluster.slots_owned for n in overview.nodes if n.said and n.said.cluster.slots]
    remark = ""
    if len(owned) > 1 and sum(owned) > 0:
        most, least = max(owned), min(owned)
        mean = sum(owned) / len(owned)
        remark = f"placement: {least / mean:.2f} to {most / mean:.2f} of the mean"
    return section("Nodes", table(heads, rows), remark)


def _node_row(
    node: NodeView, overview: Overview, by_node: Mapping[str, Sequence[Interval]]
) -> Cells:
    said, member = node.said, node.member
    name = joined(
        (
            element("code", _short(member.id)),
            " *" if member.id == overview.me else "",
            element("small", member.zone, class_="narrow"),
        )
    )
    state = element("span", member.state, class_="" if member.state == "ready" else "warn")
    if said is None:
        silent = element("span", "no answer", class_="bad")
        return name, member.zone, silent, "", "", "", "", "", "", member.grpc
    recent = over(by_node[member.id][-RECENT:])
    used = sum(disk.used_bytes for disk in said.disks)
    capacity = sum(disk.capacity_bytes for disk in said.disks)
    share = used / capacity if capacity else 0.0
    slots = said.cluster.slots
    return (
        name,
        member.zone,
        state,
        duration(said.uptime_s),
        percent(recent.hit_ratio),
        f"{size(recent.asked_bytes / _watched_s(said))}/s",
        size(used),
        bar(share, "full" if share > 0.97 else "local"),
        percent(said.cluster.slots_owned / slots) if slots else "",
        member.grpc,
    )


def filling(overview: Overview) -> Html:
    """What is on its way, longest first."""
    fills = [fill for status in _said(overview) for fill in status.fills]
    fills.sort(key=lambda fill: fill.age_s, reverse=True)
    running = sum(status.fills_running for status in _said(overview))
    rows = [
        (
            joined((element("code", fill.uri), f" shard {fill.shard}" if fill.shard else "")),
            size(fill.size_bytes),
            joined(
                (
                    percent(_share(fill.present_bytes, fill.size_bytes)),
                    bar(_share(fill.present_bytes, fill.size_bytes), "origin"),
                )
            ),
            duration(fill.age_s),
        )
        for fill in fills[:10]
    ]
    heads = [("object", "name"), ("size", "number"), ("here", ""), ("for", "number")]
    content = table(heads, rows) if rows else nothing("Nothing is being filled.")
    return section("Filling", content, f"{count(running)} shards" if running else "")


def jobs(overview: Overview) -> Html:
    """Warm-ups under way."""
    found = [(node, job) for node in overview.nodes if node.said for job in node.said.jobs]
    rows = [
        (
            joined(part for uri in job.uris for part in (element("code", uri), element("br"))),
            joined(
                (
                    percent(_share(job.progress.resident_bytes, job.progress.planned_bytes)),
                    bar(_share(job.progress.resident_bytes, job.progress.planned_bytes)),
                )
            ),
            f"{size(job.progress.planned_bytes)}{'+' if job.progress.listing else ''}",
            element("span", count(job.progress.failed_objects), class_="bad")
            if job.progress.failed_objects
            else "0",
        )
        for _, job in found[:20]
    ]
    heads = [("what", "name"), ("resident", ""), ("planned", "number"), ("failed", "number")]
    return section("Warm-ups", table(heads, rows) if rows else nothing("No warm-up is under way."))


def members(overview: Overview) -> Html:
    """Members as the others find them, slowest first."""
    latencies: dict[str, list[float]] = defaultdict(list)
    failures: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for status in _said(overview):
        for peer in status.peers:
            if not peer.id:
                continue
            if peer.latency_s:
                latencies[peer.id].append(peer.latency_s)
            failures[peer.id] += peer.failures
            alone[peer.id] += peer.left_alone
    typical = {id_: median(found) for id_, found in latencies.items()}
    middle = median(typical.values()) if typical else 0.0
    ids = sorted(
        {*typical, *failures}, key=lambda id_: (alone[id_], typical.get(id_, 0.0)), reverse=True
    )
    rows = []
    for id_ in ids[:20]:
        seconds = typical.get(id_)
        slow = seconds is not None and seconds > max(SLOW_S, SLOW_FACTOR * middle)
        rows.append(
            (
                element("code", _short(id_)),
                element(
                    "span", duration(seconds) if seconds else "", class_="warn" if slow else None
                ),
                count(failures[id_]),
                element("span", f"by {alone[id_]}", class_="bad") if alone[id_] else "",
            )
        )
    heads = [
        ("member", ""),
        ("time of a request", "number"),
        ("failures", "number"),
        ("left alone", "number"),
    ]
    content = table(heads, rows) if rows else nothing("No other member was asked yet.")
    return section("Members, slowest first", content, "as the others find them")


def money(overview: Overview) -> Html:
    """What the cache is worth."""
    entries = [status.money for status in _said(overview)]

    def total(of: Callable[[pb.Money], float]) -> float:
        return sum(of(entry) for entry in entries)

    rows: list[Cells] = [
        (f"{verb} requests avoided", count(total(lambda m, verb=verb: m.avoided_requests[verb])))  # type: ignore[misc]
        for verb in ("GET", "HEAD", "LIST")
    ]
    rows += [
        ("origin bytes avoided", size(total(lambda m: m.avoided_bytes))),
        ("bytes across zones", size(total(lambda m: m.cross_zone_bytes))),
        ("without a cache", usd(total(lambda m: m.direct_usd))),
        ("spent", usd(total(lambda m: m.spent_usd))),
        (element("b", "saved"), element("b", usd(total(lambda m: m.saved_usd)))),
    ]
    return section(
        "What it saves", table([("", ""), ("", "number")], rows), "since the start, at least"
    )


# -- how they are put together ---------------------------------------------------------------------


def _said(overview: Overview) -> list[pb.StatusReply]:
    return [node.said for node in overview.nodes if node.said is not None]


def _watched_s(said: pb.StatusReply) -> float:
    """How much of the recent minutes a node can tell of: one that was just started knows less."""
    if not said.history:
        return 1.0
    return min(60.0 * RECENT, max(1.0, said.history[-1].at_s - said.history[0].at_s))


def _short(id_: str) -> str:
    return id_[:8]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
