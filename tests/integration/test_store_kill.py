"""kill -9 at any moment loses no sealed shard and corrupts nothing (promise 8)."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.seal_forever import number_key
from support.stores import content_of, make_store

KILLS = 10
TESTS = Path(__file__).resolve().parent.parent


def seal_until_killed(path: Path, first: int, lines_wanted: int) -> list[str]:
    """Run the program until it has said so much, kill it, and give all it has said."""
    with subprocess.Popen(
        [sys.executable, "-m", "support.seal_forever", str(path), str(first)],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(lines_wanted)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    return [line for line in lines if line.endswith("\n")]


@pytest.mark.slow
async def test_every_shard_that_was_sealed_is_served_and_right_after_kill_9(tmp_path):
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    sealed: set[int] = set()
    gone: set[int] = set()
    first = 0
    for _ in range(KILLS):
        for line in seal_until_killed(tmp_path, first, rng.randrange(1, 400)):
            sign, said = line.split()
            (sealed if sign == "+" else gone).add(int(said))
        first = max(sealed, default=first) + 100
        async with make_store(tmp_path, disks=2) as store:
            candidates = range(first)
            there = {n for n in candidates if store.contains(number_key(n).digest)}
            assert sealed - gone <= there
            files = await store.open_many([number_key(n).digest for n in sorted(there)])
            for number, file in zip(sorted(there), files, strict=True):
                key = number_key(number)
                assert file is not None
                assert os.pread(file.fd, key.size + 1, 0) == content_of(key)
            reports = store.disks()
            assert sum(report.shards for report in reports) == len(there)
        on_disk = [name for _, _, names in os.walk(tmp_path) for name in names if len(name) == 32]
        assert len(on_disk) == len(there)
