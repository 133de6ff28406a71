"""What a node does by itself; settings of the process are looked at in a process of their own."""

import itertools
import os
import subprocess
import sys

import pytest

from cache_server import upkeep
from support.stores import KIB, fill, make_key, make_store

_FREES = """
import resource
from cache_server.upkeep import keep_freed_memory
if {kept}:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for _ in range(50):
    messages = [b"x" * (1 << 20) for _ in range(8)]
    del messages
print(faults() - before)
"""


def page_faults(*, kept: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _FREES.format(kept=kept)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_what_is_freed_is_used_again_without_a_page_fault():
    once = 8 * 256  # pages of the messages
    assert page_faults(kept=True) < 3 * once
    assert page_faults(kept=False) > 10 * once


class Time:
    """Passes only when somebody sleeps, and ends."""

    def __init__(self, end_s: float) -> None:
        self.now_s = 0.0
        self._end_s = end_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        if self.now_s > self._end_s:
            raise TimeoutError


@pytest.mark.parametrize(
    ("busy", "rate"),
    [(False, upkeep.SCRUB_BYTES_PER_S), (True, upkeep.SCRUB_BUSY_BYTES_PER_S)],
)
async def test_the_scrub_keeps_its_rate_and_gives_way_to_readers(tmp_path, monkeypatch, busy, rate):
    monkeypatch.setattr(upkeep, "SCRUB_AGE_S", 0)
    monkeypatch.setattr(upkeep, "SCRUB_SHARD_S", 0)
    looks: list[float] = []
    time, pread = Time(end_s=4 * 600 * KIB / rate), os.preadv

    def looking(*of):
        looks.append(time.now_s)
        return pread(*of)

    monkeypatch.setattr(os, "preadv", looking)
    async with make_store(tmp_path) as store:
        for n in range(4):
            await fill(store, make_key(f"s3://b/{n}", 600 * KIB))
        looks.clear()
        with pytest.raises(TimeoutError):
            await upkeep.scrub(store, lambda: busy, time.sleep)
        assert all(store.contains(make_key(f"s3://b/{n}", 600 * KIB).digest) for n in range(4))
    assert len(looks) == len(set(looks)) >= 40  # one block of 64 KiB at a time
    between = [b - a for a, b in itertools.pairwise(looks)]
    assert max(between[:9]) == pytest.approx(64 * KIB / rate)


async def test_the_scrub_of_an_empty_store_waits(tmp_path):
    time = Time(end_s=10)
    async with make_store(tmp_path) as store:
        with pytest.raises(TimeoutError):
            await upkeep.scrub(store, lambda: False, time.sleep)
    assert time.now_s == pytest.approx(11 * upkeep.SCRUB_IDLE_S)
