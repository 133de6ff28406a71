"""Opening a cache directory: what is sealed, and whether it may be trusted. Blocking, in a pool thread.

A shard is trusted when it was sealed, or checked, in the current *generation* of its disk; the others are
checked before they are first served. A new generation begins whenever the last server did not say goodbye
(kill -9, crash) or the kernel is another one (reboot, power cut: bytes that looked written may be gone).
So after a clean restart nothing is checked, and after any other everything once.

Only then are files and records compared. What a killed server can leave behind is listed in sealer.py;
here it is put right: a record without a file is deleted, a file without a record is unlinked. Files in
partial/ are always unlinked: which of their blocks had arrived is known to nobody.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cache_server.store import layout
from cache_server.store.records import Records, Row

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Recovered:
    """An opened directory and the shards found in it, as parallel lists: compact for millions."""

    records: Records
    generation: int
    clean: bool
    digests: list[bytes] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    verified: list[bool] = field(default_factory=list)
    pinned: list[bool] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)

    def add(self, row: Row, *, pinned: bool, dataset: str) -> None:
        """Take in one record."""
        self.digests.append(row.digest)
        self.rows.append(row.row)
        self.sizes.append(row.size)
        self.verified.append(row.generation == self.generation)
        self.pinned.append(pinned)
        self.datasets.append(dataset)


def open_records(path: str, shard_bytes: int) -> Recovered:
    """Open the records, begin a new generation if need be, and clear partial/.

    Raises:
        OSError: the directory cannot be used.
    """
    records = _open_or_set_aside(path)
    try:
        return _begin(path, records, shard_bytes)
    except BaseException:
        records.close()
        raise


def load(
    path: str,
    recovered: Recovered,
    is_pinned: Callable[[str], bool],
    dataset_of: Callable[[str], str],
) -> None:
    """Read every record into `recovered`; after an unclean stop compare with the files first."""
    if not recovered.clean:
        _reconcile(path, recovered.records)
    for row in recovered.records.load():
        recovered.add(row, pinned=is_pinned(row.uri), dataset=dataset_of(row.uri))


def _open_or_set_aside(path: str) -> Records:
    """A damaged index.db is moved away: the shards are lost, the cache is not."""
    name = os.path.join(path, layout.INDEX)
    try:
        return Records(name)
    except OSError:
        if not os.access(name, os.R_OK | os.W_OK):
            raise
        logger.exception("%s is damaged: moved to quarantine/, its shards are forgotten", name)
        os.rename(name, os.path.join(path, "quarantine", layout.INDEX))
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name + suffix)
        return Records(name)


def _begin(path: str, records: Records, shard_bytes: int) -> Recovered:
    boot = layout.boot_id()
    clean = records.fact("stopped") == boot
    generation = int(records.fact("generation") or 0) + (0 if clean else 1)
    old_shard_bytes = int(records.fact("shard_bytes") or shard_bytes)
    with records.transaction():
        if old_shard_bytes != shard_bytes:
            # The digest does not say how the object was cut, so these must go.
            count = records.delete_other_geometry(min(shard_bytes, old_shard_bytes))
            clean = False  # their files are orphans now
            logger.warning("%s: shard_bytes has changed: %d shards are dropped", path, count)
        records.set_fact("stopped", "")
        records.set_fact("generation", str(generation))
        records.set_fact("shard_bytes", str(shard_bytes))
    recovered = Recovered(records, generation, clean)
    for entry in os.scandir(os.path.join(path, "partial")):
        os.unlink(entry.path)
    return recovered


def _reconcile(path: str, records: Records) -> None:
    """Make files and records the same set, one subdirectory at a time.

    Of two records of one digest the later stays.
    """
    by_prefix: list[dict[bytes, int]] = [{} for _ in range(256)]
    gone: list[int] = []
    for row in records.load():
        older = by_prefix[row.digest[0]].pop(row.digest, None)
        if older is not None:
            gone.append(older)
        by_prefix[row.digest[0]][row.digest] = row.row
    for number, rows in enumerate(by_prefix):
        directory = os.path.join(path, "sealed", f"{number:02x}")
        with os.scandir(directory) as entries:
            names = {entry.name for entry in entries}
        known = {digest.hex(): row for digest, row in rows.items()}
        _unlink_all(directory, names - known.keys())
        gone += [row for name, row in known.items() if name not in names]
    if gone:
        with records.transaction():
            records.delete(gone)
        logger.info("%s: %d records had no file", path, len(gone))


def _unlink_all(directory: str, names: Iterable[str]) -> None:
    for name in names:
        os.unlink(os.path.join(directory, name))
        logger.info("%s/%s had no record: removed", directory, name)
