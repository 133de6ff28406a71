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
from collections.abc import Iterable
from dataclasses import dataclass

from cache_server.store import layout
from cache_server.store.records import Records

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recovered:
    """The opened records of a directory."""

    records: Records
    generation: int
    clean: bool


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


def reconcile(path: str, records: Records) -> None:
    """Make files and records the same set, after an unclean stop; one subdirectory at a time.

    Of two records of one digest the later stays.
    """
    by_prefix: list[dict[bytes, int]] = [{} for _ in range(256)]
    gone: list[int] = []
    for row in records.load_all():
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
