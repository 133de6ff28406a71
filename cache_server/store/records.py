"""What a disk remembers of its shards: `index.db`, SQLite in WAL mode, one per cache directory.

Written by the disk's own thread only, many shards to a transaction; read by pool threads through a
connection of its own under a lock, which in WAL mode never waits for the writer nor holds it up. A commit
is not synced to the device (synchronous=NORMAL): kill -9 loses none, a power cut may lose the last ones,
never the file's consistency. What that means for shards: docs/adr/0003.

Rows are numbered upwards and numbers are never used again, so inserts append and a number names one stay
of a shard. Every statement the store uses is in this file.
"""

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EIO, ENOSPC
from typing import NamedTuple

from cache_server.store.shard import ShardKey
from cache_server.store.verify import Sums
from hotshard.core.checksum import Algorithm
from hotshard.core.objects import ObjectInfo

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE shards (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  digest BLOB NOT NULL,
  uri TEXT NOT NULL,
  version TEXT NOT NULL,
  shard INTEGER NOT NULL,
  size INTEGER NOT NULL,
  object_size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  algorithm INTEGER NOT NULL,
  block_bytes INTEGER NOT NULL,
  sums BLOB NOT NULL,
  generation INTEGER NOT NULL
);
CREATE INDEX shards_by_uri ON shards (uri);
CREATE TABLE pins (uri TEXT PRIMARY KEY);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# sums: little-endian 64-bit words, one per block.
# generation: the one in which the shard was sealed or last checked, see Disk.

LOAD_ROWS = 1024  # a few milliseconds of the event loop
_CACHE_KIB = 16 << 10  # of the index by uri, whose pages are written in no order


class Row(NamedTuple):
    """What start-up needs of a record."""

    row: int
    digest: bytes
    size: int
    uri: str
    generation: int


@contextmanager
def _os_errors() -> Iterator[None]:
    """SQLite's troubles as the OSErrors they are: no space, or an unusable disk."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        raise OSError(ENOSPC if full else EIO, f"index.db: {error}") from error


class Records:
    """An open index.db."""

    def __init__(self, path: str) -> None:
        """Open or create.

        Raises:
            OSError: it cannot be used; EIO also when its content is damaged.
        """
        self._read_lock = threading.Lock()
        with _os_errors():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
                self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            script = f"BEGIN; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            self._db.executescript(script)

    def close(self) -> None:
        """Close; folds the log into the database file."""
        with self._read_lock, _os_errors():
            self._reader.close()
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator["Records"]:
        """All or nothing; the disk's thread only."""
        with _os_errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # In a transaction.

    def insert(self, key: ShardKey, sums: Sums, generation: int) -> int:
        """Record a shard; its row number."""
        cursor = self._db.execute(
            "INSERT INTO shards VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?)",
            (
                key.digest,
                key.uri,
                key.version,
                key.index,
                key.size,
                key.object_size,
                key.mtime_ns,
                int(sums.algorithm),
                sums.block_bytes,
                _packed(sums.values),
                generation,
            ),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def delete(self, rows: Iterable[int]) -> None:
        """Forget shards."""
        self._db.executemany("DELETE FROM shards WHERE id=?", ((row,) for row in rows))

    def set_generation(self, rows: Iterable[int], generation: int) -> None:
        """Note that shards were checked."""
        pairs = ((generation, row) for row in rows)
        self._db.executemany("UPDATE shards SET generation=? WHERE id=?", pairs)

    def set_pins(self, pins: Iterable[str]) -> None:
        """Replace the pins."""
        self._db.execute("DELETE FROM pins")
        self._db.executemany("INSERT INTO pins VALUES (?)", ((pin,) for pin in pins))

    def set_fact(self, name: str, value: str) -> None:
        """Keep a fact about the disk."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (name, value))

    def delete_other_geometry(self, shard_bytes_min: int) -> int:
        """Forget what depends on `shard_bytes`: all but objects that are one shard either way."""
        cursor = self._db.execute(
            "DELETE FROM shards WHERE object_size > ? OR shard > 0", (shard_bytes_min,)
        )
        return cursor.rowcount

    # Any time.

    def pins(self) -> list[str]:
        """The pinned uris."""
        return [uri for (uri,) in self._rows("SELECT uri FROM pins ORDER BY uri")]

    def fact(self, name: str) -> str | None:
        """A kept fact."""
        for (value,) in self._rows("SELECT value FROM facts WHERE name=?", name):
            return str(value)
        return None

    def load(self, after: int) -> list[Row]:
        """The next records in the order of sealing, LOAD_ROWS at most."""
        query = (
            "SELECT id, digest, size, uri, generation FROM shards WHERE id > ? ORDER BY id LIMIT ?"
        )
        return [Row(*row) for row in self._rows(query, after, LOAD_ROWS)]

    def load_all(self) -> Iterator[Row]:
        """Every record in the order of sealing."""
        last = 0
        while rows := self.load(last):
            yield from rows
            last = rows[-1].row

    def sums(self, row: int) -> Sums | None:
        """The checksums of a shard; None: forgotten meanwhile."""
        query = "SELECT algorithm, block_bytes, sums FROM shards WHERE id=?"
        for algorithm, block_bytes, packed in self._rows(query, row):
            return Sums(Algorithm(algorithm), block_bytes, _unpacked(packed))
        return None

    def under(self, uri: str) -> list[tuple[bytes, str]]:
        """The digest and uri of each shard of one object, or of all below a prefix that ends in "/"."""
        if not uri.endswith("/"):
            return self._rows("SELECT digest, uri FROM shards WHERE uri=?", uri)
        # "0" follows "/": the range holds exactly the strings that begin with the prefix.
        query = "SELECT digest, uri FROM shards WHERE uri>=? AND uri<?"
        return self._rows(query, uri, uri[:-1] + "0")

    def newest(self, uri: str) -> ObjectInfo | None:
        """The object that the last sealed shard with this uri belongs to."""
        query = (
            "SELECT version, object_size, mtime_ns FROM shards WHERE uri=? ORDER BY id DESC LIMIT 1"
        )
        for version, object_size, mtime_ns in self._rows(query, uri):
            return ObjectInfo(uri, version, object_size, mtime_ns)
        return None

    def keys(self, rows: Iterable[int]) -> list[ShardKey]:
        """The shards of these rows, in this order; those forgotten meanwhile left out."""
        query = (
            "SELECT digest, uri, version, shard, size, object_size, mtime_ns FROM shards WHERE id=?"
        )
        return [ShardKey(*found) for row in rows for found in self._rows(query, row)]

    def next_after(self, row: int) -> tuple[int, bytes] | None:
        """The row number and digest of the record after `row`."""
        query = "SELECT id, digest FROM shards WHERE id>? ORDER BY id LIMIT 1"
        for number, digest in self._rows(query, row):
            return number, digest
        return None

    def _rows(self, query: str, *values: object) -> list[tuple]:  # type: ignore[type-arg]
        with self._read_lock, _os_errors():
            return self._reader.execute(query, values).fetchall()


def _packed(values: Sequence[int]) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def _unpacked(packed: bytes) -> Sequence[int]:
    return [int.from_bytes(packed[at : at + 8], "little") for at in range(0, len(packed), 8)]
