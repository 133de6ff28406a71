"""Several directories: their shares, their identity, losing one and getting it back."""

import errno
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from cache_server.store.options import CacheDir, NoSpace, Space
from cache_server.store.shard import ShardKey
from cache_server.store.store import Store
from hotshard.core.errors import ConfigError
from support.stores import (
    KIB,
    closing,
    content_of,
    fill,
    make_key,
    make_store,
    new_store,
    opened,
    report_of,
    until,
)


def states(store: Store) -> list[str]:
    return [disk.state for disk in store.disks()]


def unequal(path, *capacities):
    return [CacheDir(str(path / f"disk{n}"), Space(size)) for n, size in enumerate(capacities)]


async def test_disks_get_shares_by_capacity(tmp_path):
    dirs = unequal(tmp_path, 1 << 30, 2 << 30, 4 << 30)
    async with make_store(tmp_path, dirs=dirs) as store:
        count = Counter(
            store._disks.ranked(make_key(f"s3://b/{n}", 10).digest)[0].path for n in range(7000)
        )
    assert [round(count[each.path] / 1000) for each in dirs] == [1, 2, 4]


async def test_a_disk_without_room_passes_a_shard_on(tmp_path):
    dirs = unequal(tmp_path, 1 << 20, 64 << 20)
    async with make_store(tmp_path, dirs=dirs) as store:
        for n in range(6):
            await fill(store, make_key(f"s3://b/{n}", 3 << 20))
        assert [disk.shards for disk in store.disks()] == [0, 6]


async def test_all_directories_agree_on_the_node(tmp_path):
    async with make_store(tmp_path, disks=3) as store:
        nodes = {
            json.loads((tmp_path / f"disk{n}" / "hotshard.json").read_text())["node"]
            for n in range(3)
        }
        assert nodes == {store.node_id}


async def test_another_nodes_directory_is_refused_not_wiped(tmp_path):
    key = make_key("s3://b/k", 10)
    async with make_store(tmp_path / "other") as other:
        await fill(other, key)
        other_id = other.node_id
    async with make_store(tmp_path, disks=2) as store:
        node_id = store.node_id
    dirs = [
        CacheDir(str(path), Space(1 << 30))
        for path in (tmp_path / "other" / "disk0", tmp_path / "disk0", tmp_path / "disk1")
    ]
    async with make_store(tmp_path, dirs=dirs) as store:
        assert store.node_id == node_id
        assert states(store) == ["refused", "ready", "ready"]
        assert f"belongs to node {other_id}" in store.disks()[0].reason
        assert not store.contains(key.digest)
    async with make_store(tmp_path / "other") as other:
        assert other.contains(key.digest)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"format": 99, "node": "n", "disk": "d"}', "format 99"),
        ("{", "cannot be understood"),
        ("[]", "cannot be understood"),
    ],
)
async def test_a_strange_identity_is_refused(tmp_path, content, reason):
    (tmp_path / "disk0").mkdir()
    (tmp_path / "disk0" / "hotshard.json").write_text(content)
    async with make_store(tmp_path, disks=2) as store:
        assert states(store) == ["refused", "ready"]
        assert reason in store.disks()[0].reason
    assert (tmp_path / "disk0" / "hotshard.json").read_text() == content


async def test_somebody_elses_directory_is_refused(tmp_path):
    (tmp_path / "disk0" / "partial").mkdir(parents=True)
    (tmp_path / "disk0" / "partial" / "thesis.tex").write_text("irreplaceable")
    async with make_store(tmp_path, disks=2) as store:
        assert states(store) == ["refused", "ready"]
        assert "not a hotshard directory" in store.disks()[0].reason
    assert (tmp_path / "disk0" / "partial" / "thesis.tex").exists()


async def test_a_directory_in_use_is_a_config_error(tmp_path):
    async with make_store(tmp_path):
        with pytest.raises(ConfigError, match="disk0 is in use by another running hotshard"):
            await new_store(tmp_path).start()
    async with make_store(tmp_path):
        pass


async def test_an_unreadable_directory_leaves_the_rest(tmp_path):
    (tmp_path / "disk0").write_text("a file")
    async with make_store(tmp_path, disks=2) as store:
        assert states(store) == ["failed", "ready"]
        assert store.disks()[0].reason
        await fill(store, make_key("s3://b/k", 10))


async def test_no_usable_directory(tmp_path):
    (tmp_path / "disk0").write_text("a file")
    with pytest.raises(ConfigError, match="disk0"):
        await new_store(tmp_path).start()
    async with make_store(tmp_path, required=False) as store:
        with pytest.raises(NoSpace):
            await store.begin(make_key("s3://b/k", 10))
        assert store.node_id


def preferring(store: Store, disk: str) -> ShardKey:
    """A key of a shard whose first choice is that disk."""
    keys = (make_key(f"s3://b/new/{n}", 10 * KIB) for n in range(1000))
    return next(key for key in keys if store._disks.ranked(key.digest)[0].path.endswith(disk))


async def lose(store: Store, tmp_path: Path) -> None:
    """Make disk0 fail in the middle of its work."""
    key = preferring(store, "disk0")
    os.rename(tmp_path / "disk0" / "sealed", tmp_path / "away")
    with pytest.raises(NoSpace):
        await fill(store, key)
    assert states(store) == ["failed", "ready"]


async def test_a_disk_that_fails_is_left_out_and_comes_back(tmp_path):
    async with make_store(tmp_path, disks=2) as store:
        keys = [make_key(f"s3://b/{n}", 10 * KIB) for n in range(40)]
        for key in keys:
            await fill(store, key)
        lost = [key for key in keys if "disk0" in report_of(store, key).path]
        assert 0 < len(lost) < 40
        await lose(store, tmp_path)
        assert "No such file" in store.disks()[0].reason
        assert [store.contains(key.digest) for key in keys] == [key not in lost for key in keys]
        assert store.cached_fd(lost[0].digest) is None
        await fill(store, make_key("s3://b/meanwhile", 10))
        os.rename(tmp_path / "away", tmp_path / "disk0" / "sealed")
        await until(closing(store, 0).done)
        await store.probe()
        assert states(store) == ["ready", "ready"]
        for key in keys:
            file = await opened(store, key)
            assert os.pread(file.fd, key.size, 0) == content_of(key)


async def test_a_shard_sealed_elsewhere_meanwhile_is_not_kept_twice(tmp_path):
    async with make_store(tmp_path, disks=2) as store:
        key = preferring(store, "disk0")
        await fill(store, key)
        path = Path(report_of(store, key).path)
        volume = store._disks.all[0].volume
        assert volume is not None
        store._disks.failed(volume, OSError(errno.EIO, "broken"))
        await fill(store, key)
        assert "disk1" in report_of(store, key).path
        await until(closing(store, 0).done)
        await store.probe()
        assert states(store) == ["ready", "ready"]
        assert "disk1" in report_of(store, key).path
    assert not path.exists()


async def test_write_errors_reported_by_the_caller(tmp_path):
    async with make_store(tmp_path, disks=2) as store:
        full = await store.begin(preferring(store, "disk0"))
        store.report_write_error(full, OSError(errno.ENOSPC, "full"))
        assert states(store) == ["ready", "ready"]
        assert store.disks()[0].limit_bytes <= store.disks()[0].used_bytes
        await store.discard(full)
        broken = await store.begin(preferring(store, "disk1"))
        store.report_write_error(broken, OSError(errno.EIO, "broken"))
        store.report_write_error(broken, OSError(errno.EIO, "broken"))
        assert states(store) == ["ready", "failed"]
        await store.discard(broken)


async def test_pins_of_all_directories_count(tmp_path):
    async with make_store(tmp_path, disks=2) as store:
        await store.pin("s3://b/keep/")
    os.rename(tmp_path / "disk0", tmp_path / "gone")
    async with make_store(tmp_path, disks=2) as store:
        assert store.pins == ["s3://b/keep/"]
    async with make_store(tmp_path, dirs=[CacheDir(str(tmp_path / "disk0"), Space(1 << 30))]) as s:
        assert s.pins == ["s3://b/keep/"]
