"""Results as one HTML page that needs nothing else: what was reached, and a plot of all that rows have."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median

from benchmarks import svg
from benchmarks.load import latency
from benchmarks.results import OURS, RowResult
from benchmarks.terminal import number

_STYLE = Path(__file__).with_name("report.css")
_SUITES = {
    "harness": "The harness itself",
    "local": "On the same node, hot",
    "mount": "Through the mount, hot",
    "mount_peers": "Our mount beside other mounts of the bucket",
    "peers": "Our client beside other ways to the same objects",
    "training": "Training: how busy accelerators are",
    "origin": "Cold, from the bucket",
    "peer": "From another server",
    "remote": "Clients of another node",
    "cluster": "Clusters",
    "epoch": "Epochs larger than the cache",
    "load": "Latency and restore under load",
    "scale": "Scale",
    "policy": "Eviction policy, on traces",
}
_SHARE_DRAWN = 0.1
_AHEAD_MAX, _BEHIND_MAX = 1000.0, 0.001


def html(results: Sequence[RowResult], notes: Mapping[str, str]) -> str:
    """The page. Rows that miss their target come first; notes, by row, say why they do."""
    ordered = sorted(results, key=lambda each: (not each.error, each.ok))
    sections = [
        _ratios(ordered),
        *(_suite(name, ordered, notes) for name in _suites(results)),
        _latencies(ordered),
        _costs(ordered),
        _table(ordered),
        _errors(ordered),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>hotshard benchmarks</title>'
        f"<style>{_STYLE.read_text(encoding='utf-8')}</style></head><body><main>"
        f"<h1>hotshard benchmarks</h1>{_head(ordered)}{''.join(sections)}</main></body></html>\n"
    )


def _suite_of(row: str) -> str:
    return row.partition(".")[0]


def _suites(results: Sequence[RowResult]) -> list[str]:
    present = dict.fromkeys(_suite_of(each.row) for each in results)
    return [name for name in _SUITES if name in present] + [n for n in present if n not in _SUITES]


def _head(results: Sequence[RowResult]) -> str:
    if not results:
        return "<p>No rows.</p>"
    facts = results[0].machine
    broken = sum(bool(each.error) for each in results)
    missed = sum(not each.ok and not each.error for each in results)
    minutes = sum(each.seconds for each in results) / 60
    tiles = [
        ("good", str(len(results) - broken - missed), "rows at their target"),
        ("bad" if missed else "", str(missed), "rows miss it"),
        ("bad" if broken else "", str(broken), "rows broke"),
        ("", f"{minutes:.1f} min", "all rows together"),
    ]
    shown = "".join(
        f'<div class="tile {kind}"><b>{value}</b><small>{name}</small></div>'
        for kind, value, name in tiles
    )
    memory = facts.get("memory_bytes")
    parts = [
        f"{facts.get('cpu_model', '')}, {facts.get('cpus', '?')} CPUs",
        f"{memory / 2**30:.0f} GiB" if isinstance(memory, int) else "",
        f"Linux {facts.get('kernel', '?')}",
        f"Python {facts.get('python', '?')}",
        f"scale {facts.get('scale', '?')}",
        f"taken {facts.get('taken', '?')}",
    ]
    line = escape(" · ".join(part for part in parts if part))
    return (
        f'<p class="dim">{line}</p><p>Each row measures hotshard beside the limit of the machine, in'
        " turns within the same run. What counts is the ratio, and 1 is the limit.</p>"
        f'<div class="tiles">{shown}</div>'
    )


def _ratios(results: Sequence[RowResult]) -> str:
    items = [
        svg.Ratio(
            label=each.row,
            value=min(max(each.ratio, _BEHIND_MAX), _AHEAD_MAX),
            target=each.target,
            text=f"{each.ratio:.2f} of {each.limit_name}",
            low=each.ratio * (1 - each.spread["ratio"] / 2),
            high=each.ratio * (1 + each.spread["ratio"] / 2),
        )
        for each in results
        if each.ratio is not None
    ]
    if not items:
        return ""
    chart = svg.ratios(items, title="ratio to the limit")
    return (
        '<h2>Ratio to the limit</h2><p class="dim">Logarithmic. The upright tick is the target, the thin'
        " line the range of the runs. Where the limit is a rival, or a number that was set, more than 1"
        f' is meant to be.</p><div class="card scroll">{chart}</div>'
    )


def _suite(name: str, results: Sequence[RowResult], notes: Mapping[str, str]) -> str:
    """Every row of a suite as a card: all its sides, in its unit, and its curves."""
    of_it = [each for each in results if _suite_of(each.row) == name and not each.error]
    cards = [_card(each, "" if each.ok else notes.get(each.row, "")) for each in of_it]
    if not cards:
        return ""
    title = escape(_SUITES.get(name, name))
    return f'<h2>{title}</h2><div class="grid">{"".join(cards)}</div>'


def _card(each: RowResult, note: str) -> str:
    limits = {each.limit_name, *each.others}
    items = []
    for name, runs in each.runs.items():
        values = [value for run in runs if isinstance(value := run["value"], int | float)]
        if values:
            kind = "ours" if name == OURS else "limit" if name in limits else "peer"
            middle = median(values)
            text = f"{number(middle)} {each.unit}"
            items.append(svg.Bar(name, middle, text, kind, min(values), max(values)))
    items.sort(key=lambda bar: ("ours", "limit", "peer").index(bar.kind))
    verdict = "ok" if each.ok else "no"
    why = f"<p>Why it misses: {escape(note)}.</p>" if note else ""
    return (
        f'<div class="card"><span class="verdict {verdict}">{each.ratio:.2f} (target {each.target:g})'
        f"</span><h3>{escape(each.row)}</h3><p class='dim'>{escape(each.title)}</p>"
        f"{why}{svg.bars(items, title=each.row)}{_curves(each)}</div>"
    )


def _curves(each: RowResult) -> str:
    """The fullest curves of every side: rows may draw theirs in one round only.

    A curve has the colour of its name and the dash of its side.
    """
    found: list[svg.Curve] = []
    colours: dict[str, int] = {}
    sides = sorted(each.runs, key=lambda side: side != OURS)
    for side in sides:
        runs = each.runs[side]
        drawn = [c for run in runs if isinstance(c := run.get("curves"), Mapping)]
        fullest = max(drawn, key=lambda curves: sum(map(len, curves.values())), default={})
        dash = len({curve.dash for curve in found})
        for name, points in fullest.items():
            label = name if side == OURS else f"{name}, {side}"
            colour = colours.setdefault(name, len(colours))
            spots = [(float(x), float(y)) for x, y in points]
            found.append(svg.Curve(label, spots, colour, dash))
    axes = each.axes if len(each.axes) == 2 else ("", "")
    return svg.curves(found, title=f"curves of {each.row}", axes=axes) if found else ""


def _latencies(results: Sequence[RowResult]) -> str:
    cards = []
    for each in results:
        found = [(name, _histogram(runs)) for name, runs in each.runs.items()]
        lines = [svg.Curve(name, latency.cdf(text)) for name, text in found if text]
        if lines:
            lines.sort(key=lambda curve: curve.label != OURS)
            chart = svg.percentiles(lines, title=f"latency of {each.row}")
            title = escape(each.title)
            cards.append(
                f'<div class="card"><h3>{escape(each.row)}</h3><p class="dim">{title}</p>{chart}</div>'
            )
    if not cards:
        return ""
    return (
        '<h2>Latencies</h2><p class="dim">Calls that took no longer, by percentile; every step to the right'
        f' is a further nine.</p><div class="grid">{"".join(cards)}</div>'
    )


def _histogram(runs: Sequence[Mapping[str, object]]) -> str:
    encoded = [str(run["histogram"]) for run in runs if run["histogram"]]
    return latency.merged(encoded) if encoded else ""


def _costs(results: Sequence[RowResult]) -> str:
    """CPU seconds per GB of our side and of the limit, where a row moves bytes."""
    cards = []
    for each in results:
        items = []
        for name, runs in each.runs.items():
            costs = [run["cpu_s_per_gb"] for run in runs]
            known = [sum(cost.values()) for cost in costs if isinstance(cost, dict) and cost]
            if known:
                kind = "ours" if name == OURS else "limit" if name == each.limit_name else "peer"
                middle = median(known)
                items.append(svg.Bar(name, middle, f"{middle:.2f}", kind, min(known), max(known)))
        if any(bar.kind == "ours" and bar.value >= _SHARE_DRAWN for bar in items):
            items.sort(key=lambda bar: ("ours", "limit", "peer").index(bar.kind))
            chart = svg.bars(items, title=f"CPU of {each.row}")
            cards.append(f'<div class="card"><h3>{escape(each.row)}</h3>{chart}</div>')
    if not cards:
        return ""
    return (
        '<h2>CPU seconds per GB</h2><p class="dim">Client and server together; the S3 server is not'
        f' counted. Rows under {_SHARE_DRAWN} are left out.</p><div class="grid">{"".join(cards)}</div>'
    )


def _table(results: Sequence[RowResult]) -> str:
    names = ("row", "hotshard", "limit", "ratio", "target", "spread", "")
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(map(_line, results))
    return f'<h2>All rows</h2><div class="card scroll"><table><tr>{head}</tr>{body}</table></div>'


def _line(each: RowResult) -> str:
    beside = {**each.others, **each.peers}
    others = "".join(f"<br><small>{escape(k)} {number(v)}</small>" for k, v in beside.items())
    verdict = '<td class="ok">ok</td>' if each.ok else '<td class="no">misses</td>'
    cells = (
        f"{number(each.value)} {escape(each.unit)}",
        f"{number(each.limit)}<br><small>{escape(each.limit_name)}</small>{others}",
        "-" if each.ratio is None else f"{each.ratio:.2f}",
        f"{each.target:.2f}",
        f"±{50 * each.spread['ratio']:.0f}%" if each.spread else "-",
    )
    first = f'<td class="left">{escape(each.row)}<br><small>{escape(each.title)}</small></td>'
    broken = '<td class="no">broken</td>'
    rest = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr>{first}{rest}{broken if each.error else verdict}</tr>"


def _errors(results: Sequence[RowResult]) -> str:
    broken = [each for each in results if each.error]
    return "".join(
        f"<h2>{escape(each.row)}: why it broke</h2><pre>{escape(each.error)}</pre>"
        for each in broken
    )
