"""The on-disk format is fixed by a golden file. If this fails, you changed the format: bump
layout.FORMAT (and records.SCHEMA_VERSION), and write a new golden file beside the old one."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

from cache_server.store import layout, records
from hotshard.core.checksum import Algorithm
from support.stores import KIB, fill, make_key, make_store

GOLDEN = Path(__file__).parent / f"format_{layout.FORMAT}.json"
CONTENT = bytes(range(256)) * 600  # three blocks of the test geometry
COLUMNS = "uri, version, shard, size, object_size, mtime_ns, algorithm, block_bytes, generation"


async def described(path) -> dict[str, object]:
    """Everything another program would need to know to read the directory."""
    async with make_store(path) as store:
        for algorithm in Algorithm:
            key = make_key(f"s3://bucket/a b/ü{int(algorithm)}", len(CONTENT))
            await fill(store, key, content=CONTENT, algorithm=algorithm)
        await store.pin("s3://bucket/a b/")
    directory = path / "disk0"
    identity = json.loads((directory / "hotshard.json").read_text())
    db = sqlite3.connect(directory / "index.db")
    schema = db.execute("SELECT sql FROM sqlite_master WHERE name LIKE '%s%' ORDER BY name")
    rows = db.execute(f"SELECT hex(digest), hex(sums), {COLUMNS} FROM shards ORDER BY id")
    described = {
        "names": sorted(set(os.listdir(directory)) - {"index.db-wal", "index.db-shm"}),
        "sealed": sorted(str(f.relative_to(directory)) for f in directory.glob("sealed/*/*")),
        "identity": {"format": identity["format"], "keys": sorted(identity)},
        "schema": [sql for (sql,) in schema if sql],
        "schema_version": db.execute("PRAGMA user_version").fetchone()[0],
        "shards": [list(row) for row in rows],
        "pins": [uri for (uri,) in db.execute("SELECT uri FROM pins")],
        "facts": sorted(name for (name,) in db.execute("SELECT name FROM facts")),
    }
    db.close()
    return described


async def test_the_format_is_the_golden_one(tmp_path):
    found = await described(tmp_path)
    assert found == json.loads(GOLDEN.read_text()), __doc__
    assert found["schema_version"] == records.SCHEMA_VERSION


async def test_other_users_of_the_node_cannot_read_past_the_server(tmp_path):
    async with make_store(tmp_path):
        for directory in ("", "sealed", "partial", "quarantine"):
            assert (tmp_path / "disk0" / directory).stat().st_mode & 0o077 == 0


def test_sealed_path():
    path = layout.sealed_path("/c", bytes(range(16)))
    assert path == "/c/sealed/00/000102030405060708090a0b0c0d0e0f"


def test_a_directory_is_locked_once(tmp_path):
    fd = layout.lock(str(tmp_path / "new"))
    with pytest.raises(layout.InUse):
        layout.lock(str(tmp_path / "new"))
    os.close(fd)
    os.close(layout.lock(str(tmp_path / "new")))


def test_make_is_idempotent_and_keeps_the_identity(tmp_path):
    first = layout.Identity(layout.FORMAT, "n", "d")
    layout.make(str(tmp_path), first)
    layout.make(str(tmp_path), layout.Identity(layout.FORMAT, "other", "other"))
    assert layout.read_identity(str(tmp_path)) == first
    assert len(os.listdir(tmp_path / "sealed")) == 256


def test_boot_id_is_stable():
    assert layout.boot_id() == layout.boot_id()
    assert 4 * KIB > len(layout.boot_id()) > 30
