"""Results as one HTML page that needs nothing else: the table, and a plot of whatever the rows have."""

from collections.abc import Sequence
from html import escape

from benchmarks import svg
from benchmarks.load import latency
from benchmarks.results import OURS, RowResult
from benchmarks.terminal import number

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --dim: #687282; --line: #d5dae2; --page: #fff;
        --good: #2f8f5b; --bad: #cf5b3c; --plain: #4a7fc1; --second: #c28a1e; --third: #8a5fb5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ee; --dim: #95a0b0; --line: #343c48; --page: #14181e; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
       max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
td small, .dim { color: var(--dim); } .ok { color: var(--good); } .no { color: var(--bad); }
pre { overflow-x: auto; font-size: 12px; } svg { max-width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--ink); }
.bar.good { fill: var(--good); } .bar.bad { fill: var(--bad); } .bar.plain { fill: var(--plain); }
.mark { stroke: var(--ink); stroke-width: 2; } .range { stroke: var(--ink); opacity: .6; }
.grid { stroke: var(--line); } polyline { fill: none; stroke-width: 2; }
.curve-0 { stroke: var(--plain); stroke-width: 2; } .curve-1 { stroke: var(--good); stroke-width: 2; }
.curve-2 { stroke: var(--second); stroke-width: 2; } .curve-3 { stroke: var(--third); stroke-width: 2; }
"""


def html(results: Sequence[RowResult]) -> str:
    """The page. Rows that miss their target come first."""
    ordered = sorted(results, key=lambda each: each.ok)
    sections = [
        _ratios(ordered),
        _table(ordered),
        _latencies(ordered),
        _cpu(ordered),
        _errors(ordered),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>hotshard benchmarks</title>'
        f"<style>{_STYLE}</style></head><body><h1>hotshard benchmarks</h1>"
        f"{_machine(ordered)}{''.join(sections)}</body></html>\n"
    )


def _machine(results: Sequence[RowResult]) -> str:
    if not results:
        return "<p>No rows.</p>"
    facts = results[0].machine
    keys = ("cpu_model", "cpus", "kernel", "python", "scale", "taken")
    known = ", ".join(f"{key} {escape(str(facts[key]))}" for key in keys if key in facts)
    return f'<p class="dim">{known}</p>'


def _ratios(results: Sequence[RowResult]) -> str:
    items = [
        svg.Bar(
            label=each.row,
            value=min(each.ratio, 2.0),
            text=f"{each.ratio:.2f} of {each.limit_name}",
            kind="good" if each.ok else "bad",
            mark=each.target,
            low=min(2.0, each.ratio * (1 - each.spread["ratio"] / 2)),
            high=min(2.0, each.ratio * (1 + each.spread["ratio"] / 2)),
        )
        for each in results
        if each.ratio is not None
    ]
    note = "The tick is the target, the thin line the range of the runs; bars end at 2."
    chart = svg.bars(items, title="ratio to the limit")
    return f'<h2>Ratio to the limit of the machine</h2><p class="dim">{note}</p>{chart}'


def _table(results: Sequence[RowResult]) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("row", "value", "limit", "ratio", "target", "spread", "")
    )
    return f"<h2>Rows</h2><table><tr>{head}</tr>{''.join(map(_line, results))}</table>"


def _line(each: RowResult) -> str:
    others = "".join(f"<br><small>{escape(k)} {number(v)}</small>" for k, v in each.others.items())
    verdict = '<td class="ok">ok</td>' if each.ok else '<td class="no">misses</td>'
    cells = (
        f"{escape(each.row)}<br><small>{escape(each.title)}</small>",
        f"{number(each.value)} {escape(each.unit)}",
        f"{number(each.limit)}<br><small>{escape(each.limit_name)}</small>{others}",
        "-" if each.ratio is None else f"{each.ratio:.2f}",
        f"{each.target:.2f}",
        f"±{50 * each.spread['ratio']:.0f}%" if each.spread else "-",
    )
    broken = '<td class="no">broken</td>'
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}{broken if each.error else verdict}</tr>"


def _latencies(results: Sequence[RowResult]) -> str:
    parts = []
    for each in results:
        found = [(name, _histogram(runs)) for name, runs in each.runs.items()]
        lines = [svg.Curve(name, latency.cdf(text)) for name, text in found if text]
        if lines:
            chart = svg.curves(lines, title=f"latency of {each.row}", x_label="latency of one call")
            parts.append(f"<h2>{escape(each.row)}: calls done within</h2>{chart}")
    return "".join(parts)


def _histogram(runs: Sequence[object]) -> str:
    encoded = [str(run["histogram"]) for run in runs if isinstance(run, dict) and run["histogram"]]
    return latency.merged(encoded) if encoded else ""


def _cpu(results: Sequence[RowResult]) -> str:
    items = []
    for each in results:
        for name, runs in each.runs.items():
            costs = [run["cpu_s_per_gb"] for run in runs]
            known = [sum(cost.values()) for cost in costs if isinstance(cost, dict) and cost]
            if known:
                middle = sorted(known)[len(known) // 2]
                kind = "good" if name == OURS else "plain"
                items.append(svg.Bar(f"{each.row} {name}", middle, f"{middle:.2f}", kind))
    if not items:
        return ""
    chart = svg.bars(items, title="CPU seconds per GB")
    return f"<h2>CPU seconds per GB, all our processes together</h2>{chart}"


def _errors(results: Sequence[RowResult]) -> str:
    broken = [each for each in results if each.error]
    return "".join(
        f"<h2>{escape(each.row)}: why it broke</h2><pre>{escape(each.error)}</pre>"
        for each in broken
    )
