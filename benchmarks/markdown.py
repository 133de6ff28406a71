"""Results as tables of a document: the figures, misses first, and what each row measures.

`python -m benchmarks table all.json --into docs/BENCHMARKS.md` puts them between the two marks there, so
that refreshing the document is one step.
"""

from collections.abc import Mapping, Sequence

from benchmarks.results import OURS, BenchError, RowResult
from benchmarks.stats import ratio
from benchmarks.terminal import minutes, number

BEGIN = "<!-- figures: python -m benchmarks table FILE --into docs/BENCHMARKS.md -->"
END = "<!-- end of figures -->"
_COLUMNS = (
    "row", "what is measured", "hotshard", "limit", "ratio", "target",
    "others (hotshard is so many times better)",
)  # fmt: skip


def figures(results: Sequence[RowResult], notes: Mapping[str, str]) -> str:
    """The tables and a line about the run; rows that miss their target, or broke, come first.

    Args:
        results: of one run or several.
        notes: why a row misses its target where it does, by row.
    """
    if not results:
        raise BenchError("no rows")
    broken = [each for each in results if each.error]
    missed = [each for each in results if not each.ok and not each.error]
    reached = [each for each in results if each.ok]
    parts = [_about(results)]
    if broken:
        parts.append("**Broken:**\n\n" + "\n".join(map(_broken, broken)))
    if missed:
        parts.append(f"**{_rows(missed)} below the target:**\n\n{_table(missed)}")
        parts.append("Why:\n\n" + "\n".join(_why(each, notes) for each in missed))
    if reached:
        parts.append(f"**{_rows(reached)} at the target:**\n\n{_table(reached)}")
    parts.append(_times(results))
    return "\n\n".join(parts)


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
    missed = sum(not each.ok for each in results)
    return (
        f"{_rows(results)}, {missed} of them below their target or broken; "
        f"{minutes(sum(each.seconds for each in results))} on"
        f" {facts.get('cpus')} CPUs ({facts.get('cpu_model')}), {size}Linux {facts.get('kernel')},"
        f" scale {facts.get('scale')}, {str(facts.get('taken'))[:10]}."
    )


def _rows(results: Sequence[RowResult]) -> str:
    return "1 row" if len(results) == 1 else f"{len(results)} rows"


def _table(results: Sequence[RowResult]) -> str:
    return "\n".join([_line(_COLUMNS), "|---" * len(_COLUMNS) + "|", *map(_figure, results)])


def _figure(each: RowResult) -> str:
    cells = (
        each.row,
        each.title,
        f"{number(each.value)} {each.unit}",
        f"{number(each.limit)} ({each.limit_name})",
        "-" if each.ratio is None else f"{each.ratio:.2f}{_spread(each)}",
        f"{each.target:.2f}",
        _beside(each),
    )
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _spread(each: RowResult) -> str:
    half = 50 * each.spread.get("ratio", 0.0)
    return f" ±{half:.0f}%" if half >= 1 else ""


def _beside(each: RowResult) -> str:
    """Every other side, with how many times better ours is."""
    return ", ".join(
        f"{name} {number(value)} ({number(ratio(each.value or 0.0, value, each.better))}x)"
        for name, value in {**each.others, **each.peers}.items()
        if name != OURS
    )


def _broken(each: RowResult) -> str:
    return f"- {each.row}: {each.error.partition(chr(10))[0][:160]}"


def _why(each: RowResult, notes: Mapping[str, str]) -> str:
    return f"- {each.row}: {notes.get(each.row) or 'not explained yet'}"


def _times(results: Sequence[RowResult]) -> str:
    late = [each for each in results if each.seconds > each.budget_s]
    if not late:
        return "Every row stayed within its time (`list` shows it)."
    taken = (f"{each.row} ({each.seconds:.0f} s of {each.budget_s:.0f})" for each in late)
    return f"Longer than they may take: {', '.join(taken)}."
