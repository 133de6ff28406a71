"""Results as tables of a document: the figures, misses first, and what each row measures.

`python -m benchmarks table all.json --into docs/BENCHMARKS.md` puts them between the two marks there, so
that refreshing the document is one step.
"""

from collections.abc import Sequence

from benchmarks.results import OURS, BenchError, RowResult
from benchmarks.stats import ratio
from benchmarks.terminal import number

BEGIN = "<!-- figures: python -m benchmarks table FILE --into docs/BENCHMARKS.md -->"
END = "<!-- end of figures -->"


def figures(results: Sequence[RowResult]) -> str:
    """The tables and a line about the run; rows that miss their target, or broke, come first."""
    if not results:
        raise BenchError("no rows")
    ordered = sorted(results, key=lambda each: (not each.error, each.ok))
    lines = [
        _about(results),
        "",
        "| row | ours | limit | ratio | target | | beside it (ours is so many times better) |",
        "|---|---|---|---|---|---|---|",
        *map(_figure, ordered),
        "",
        "What the rows measure, and how long each took in this run beside the time it has:",
        "",
        "| row | ours | limit | target | time |",
        "|---|---|---|---|---|",
        *map(_meaning, results),
    ]
    return "\n".join(lines)


def replaced(document: str, text: str) -> str:
    """A document with other figures between its marks.

    Raises:
        BenchError: the marks are not there, once each and in order.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise BenchError(f"the document should have the marks {BEGIN!r} and {END!r}, once each")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def _about(results: Sequence[RowResult]) -> str:
    facts = results[0].machine
    memory = facts.get("memory_bytes")
    size = f"{memory / 2**30:.0f} GiB, " if isinstance(memory, int) else ""
    minutes = sum(each.seconds for each in results) / 60
    missed = sum(not each.ok for each in results)
    return (
        f"{len(results)} rows, {missed} of them under their target or broken; {minutes:.0f} minutes on"
        f" {facts.get('cpus')} CPUs ({facts.get('cpu_model')}), {size}Linux {facts.get('kernel')},"
        f" scale {facts.get('scale')}, {str(facts.get('taken'))[:10]}."
    )


def _figure(each: RowResult) -> str:
    if each.ratio is None:
        why = each.error.partition("\n")[0].replace("|", "/")[:120]
        return f"| {each.row} | - | - | - | {each.target:.2f} | broke | {why} |"
    cells = (
        each.row,
        f"{number(each.value)} {each.unit}",
        f"{number(each.limit)} ({each.limit_name})",
        f"{each.ratio:.2f}",
        f"{each.target:.2f}",
        "" if each.ok else "misses",
        _beside(each),
    )
    return f"| {' | '.join(cells)} |"


def _beside(each: RowResult) -> str:
    """Every other side, with how many times better ours is."""
    return ", ".join(
        f"{name} {number(value)} ({number(ratio(each.value or 0.0, value, each.better))}x)"
        for name, value in {**each.others, **each.peers}.items()
        if name != OURS
    )


def _meaning(each: RowResult) -> str:
    limit = each.limit_name or "-"
    time = f"{each.seconds:.0f} of {each.budget_s:.0f} s"
    return f"| {each.row} | {each.title} | {limit} | {each.target:.2f} | {time} |"
