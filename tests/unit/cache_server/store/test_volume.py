"""Room on one disk: capacity, the free-space floor, a file system that is really full."""

import errno
import os
import subprocess

import pytest

from benchmarks.policy.others import Lru
from cache_server.store.options import CacheDir, NoSpace, Space
from cache_server.store.volume import footprint
from support.stores import KIB, fill, make_key, make_store


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 24 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def on(path, **options):
    """A store on that file system that may use all of it."""
    options.setdefault("free_space_floor", Space(size=1 << 20))
    return make_store(path, dirs=[CacheDir(str(path / "d"), Space(fraction=1.0))], **options)


def free_bytes(path):
    stats = os.statvfs(path)
    return stats.f_bavail * stats.f_frsize


async def tend(store):
    """Look at the file system now."""
    store._disks.all[0].volume.looked_at = float("-inf")
    await store.tend()


def test_footprint():
    assert [footprint(n) for n in (0, 1, 4096, 4097)] == [4096, 4096, 4096, 8192]


async def test_reserved_bytes_come_back(tmp_path):
    async with make_store(tmp_path) as store:
        partial = await store.begin(make_key("s3://b/k", 100 * KIB))
        assert store.disks()[0].partial_bytes == 100 * KIB
        await store.discard(partial)
        await fill(store, make_key("s3://b/next", 10))  # the discard was queued before
        assert store.disks()[0].partial_bytes == 0
        assert store.disks()[0].used_bytes == 4096


async def test_filling_a_small_disk_evicts_and_keeps_the_floor(small_disk):
    async with on(small_disk, free_space_floor=Space(size=8 << 20), new_policy=Lru) as store:
        for n in range(300):
            await fill(store, make_key(f"s3://b/{n}", 100 * KIB))
        report = store.disks()[0]
        assert report.state == "ready"
        assert store.events_seen["evicted", "space"] > 0
        await tend(store)
        assert free_bytes(small_disk) > 7 << 20  # the log of index.db may grow meanwhile


async def test_space_taken_by_others_is_given_back(small_disk):
    async with on(small_disk) as store:
        for n in range(100):
            await fill(store, make_key(f"s3://b/{n}", 100 * KIB))
        with open(small_disk / "other", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free_bytes(small_disk) - (100 << 10))
            await tend(store)
            assert free_bytes(small_disk) > 700 << 10
        assert store.events_seen["evicted", "space"] > 0


async def test_a_full_file_system_means_bypass_until_there_is_room(small_disk):
    async with on(small_disk, free_space_floor=Space(size=0, fraction=0.0)) as store:
        await fill(store, make_key("s3://b/0", 1 << 20))
        partial = await store.begin(make_key("s3://b/1", 3 << 20))
        hog = os.open(small_disk / "hog", os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError, match="No space") as caught:
            for offset in range(0, 64 << 20, 1 << 20):
                os.pwrite(hog, bytes(1 << 20), offset)
        with pytest.raises(OSError, match="No space") as caught:
            os.pwrite(partial.file.fd, os.urandom(3 << 20), 0)
            os.pwrite(partial.file.fd, os.urandom(3 << 20), 3 << 20)
        assert caught.value.errno == errno.ENOSPC
        store.report_write_error(partial, caught.value)
        await store.discard(partial)
        store._disks.all[0].volume.looked_at = float("-inf")
        with pytest.raises(NoSpace):
            await store.begin(make_key("s3://b/2", 20 << 20))
        assert store.disks()[0].state == "ready"
        os.ftruncate(hog, 0)
        os.close(hog)
        store._disks.all[0].volume.looked_at = float("-inf")
        await fill(store, make_key("s3://b/3", 1 << 20))
