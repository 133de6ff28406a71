"""A full file cache: what is read of the sparse file is in memory, and nothing of it on the disk."""

import mmap
import os

import pytest

from benchmarks.file_cache import FullFileCache

MIB = 1 << 20


@pytest.fixture
def small_machine(monkeypatch):
    sizes = {"SC_PHYS_PAGES": 4 * MIB // mmap.PAGESIZE, "SC_PAGE_SIZE": mmap.PAGESIZE}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)


def test_it_reads_a_memory_full_of_holes_and_goes_round(tmp_path, small_machine, monkeypatch):
    read, preadv = [], os.preadv

    def counted(fd, buffers, offset):
        count = preadv(fd, buffers, offset)
        read.append((offset, count))
        return count

    monkeypatch.setattr(os, "preadv", counted)
    with FullFileCache(str(tmp_path)) as cache:
        (path,) = tmp_path.iterdir()
        assert path.stat().st_size == 16 * MIB
        assert path.stat().st_blocks == 0
        assert read == [(i * MIB, MIB) for i in range(4)]
        del read[:]
        cache.fill(13 * MIB)
        assert [offset // MIB for offset, _ in read] == [*range(4, 16), 0]
        assert {count for _, count in read} == {MIB}
    assert not list(tmp_path.iterdir())
