"""What a benchmark leaves behind: one record per row, and the JSON file that holds them.

A record says everything needed to judge it later: both sides' medians, every run, the machine. Fields are
those of DESIGN section 13; the others are ours. Files are read back strictly: a record
that lacks a field is refused, not guessed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from benchmarks.stats import Better

FORMAT = "hotshard-benchmarks/2"
OURS = "hotshard"
"""The name of our side in `runs`; the other names are limits."""

Fact = float | str
Point = tuple[float, float]


class BenchError(Exception):
    """A row that cannot be measured, or a result that must not be believed."""


class WrongBytes(BenchError):
    """What was read differs from what the seeded generator says was written."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One timed run of one side."""

    value: float
    """In the row's unit."""
    seconds: float = 0.0
    payload_bytes: int = 0
    operations: int = 0
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    """CPU seconds spent meanwhile, by process: client, server."""
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """Whatever else explains the value."""
    histogram: str = ""
    """Latencies in nanoseconds: an encoded HDR histogram, where the row records them."""
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    """Named curves over the row's x axis, where one value does not say it: by epoch, by nodes."""

    @property
    def cpu_s_per_gb(self) -> dict[str, float]:
        """CPU seconds per GB of payload, by process."""
        if not self.payload_bytes:
            return {}
        return {who: cpu / (self.payload_bytes / 1e9) for who, cpu in self.cpu_s.items()}


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row of the table."""

    row: str
    title: str
    unit: str
    better: Better
    value: float | None
    """Median of our runs; None when the row could not be measured."""
    limit: float | None
    """Median of the runs of the best limit."""
    limit_name: str
    ratio: float | None
    """Median of the rounds' ratios; 1.0 is the limit."""
    target: float
    ok: bool
    """Measured, bytes right, and ratio >= target."""
    spread: Mapping[str, float]
    """(high - low) / median of `value`, `limit` and `ratio`."""
    others: Mapping[str, float]
    """Medians of the limits that were not the best."""
    peers: Mapping[str, float]
    """Medians of what was measured beside, and is no limit: rivals, and other ways of ours."""
    axes: Sequence[str]
    """What the x and the y axis of the runs' curves are; empty strings: there are none."""
    seconds: float
    """Wall clock of the whole row, setting up included."""
    budget_s: float
    """What it may take at full scale."""
    machine: Mapping[str, object]
    runs: Mapping[str, Sequence[Mapping[str, object]]]
    """Every run of every side, in the order taken."""
    error: str = ""
    """Why it could not be measured."""


def run_record(measured: Measured) -> dict[str, object]:
    """A run as it goes into `runs`."""
    return {**asdict(measured), "cpu_s_per_gb": measured.cpu_s_per_gb}


def dump(rows: Sequence[RowResult]) -> str:
    """The file's text."""
    return json.dumps({"format": FORMAT, "rows": [asdict(row) for row in rows]}, indent=1) + "\n"


def load(text: str, *, source: str) -> list[RowResult]:
    """Read a file's text back.

    Raises:
        BenchError: it is not one of ours.
    """
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise BenchError(f"{source}: format {document['format']!r}, expected {FORMAT!r}")
        return [_row(record) for record in document["rows"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BenchError(f"{source}: not a result file of this harness ({error})") from error


def _row(record: dict[str, object]) -> RowResult:
    known = {f.name for f in fields(RowResult)}
    if missing := known - record.keys():
        raise ValueError(f"row lacks {sorted(missing)}")
    values = {name: record[name] for name in known}
    return RowResult(**{**values, "better": Better(values["better"])})  # type: ignore[arg-type]
