"""The catalogue: every row, in the order of the table, and how rows are named on the command line."""

from collections.abc import Sequence

from benchmarks.bench import Row
from benchmarks.results import BenchError
from benchmarks.rows import (
    cluster_flight,
    cluster_nodes,
    epoch,
    harness,
    load,
    local_readers,
    local_reads,
    local_small,
    mount,
    mount_peers,
    origin,
    peer,
    peers,
    policy,
    remote,
    scale,
    scale_placement,
    training,
)

CATALOGUE: tuple[Row, ...] = (
    *harness.ROWS,
    *local_reads.ROWS,
    *local_small.ROWS,
    *local_readers.ROWS,
    *load.ROWS,
    *mount.ROWS,
    *mount_peers.ROWS,
    *peers.ROWS,
    *origin.ROWS,
    *training.ROWS,
    *scale.ROWS,
    *peer.ROWS,
    *remote.ROWS,
    *cluster_flight.ROWS,
    *cluster_nodes.ROWS,
    *scale_placement.ROWS,
    *epoch.ROWS,
    *policy.ROWS,
)


def select(names: Sequence[str]) -> list[Row]:
    """The rows that names ask for, in table order.

    A name is a row, the beginning of some rows' names up to a "." or "_" (a suite), "all", or "quick":
    those rows that show in little time that the harness works.

    Raises:
        BenchError: a name asks for nothing.
    """
    chosen: set[str] = set()
    for name in names:
        found = {row.name for row in CATALOGUE if _belongs(row, name)}
        if not found:
            raise BenchError(f"no row or suite {name!r}; see: python -m benchmarks list")
        chosen |= found
    return [row for row in CATALOGUE if row.name in chosen]


def only(names: Sequence[str]) -> Row:
    """The one row that names ask for.

    Raises:
        BenchError: they ask for several, or for none.
    """
    rows = select(names)
    if len(rows) != 1:
        raise BenchError(f"{' '.join(names)} is {len(rows)} rows, and one is wanted")
    return rows[0]


def _belongs(row: Row, name: str) -> bool:
    if name == "quick":
        return row.quick
    return name in {"all", row.name} or row.name.startswith((f"{name}.", f"{name}_"))
