"""The memory budget that `auto` stands for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_server.config.memory import (
    BUDGET_BYTES_MAX,
    BUDGET_BYTES_MIN,
    auto_memory_bytes,
    limit_files,
    read_auto_memory_bytes,
)

GIB = 1 << 30
MEMINFO = "MemTotal:        8388608 kB\nMemFree:          100 kB\n"  # 8 GiB


@pytest.mark.parametrize(
    ("limits", "meminfo", "budget"),
    [
        ([f"{2 * GIB}\n"], MEMINFO, int(2 * GIB * 0.6)),
        (["max\n", f"{2 * GIB}\n"], MEMINFO, int(2 * GIB * 0.6)),
        ([f"{4 * GIB}", f"{2 * GIB}"], MEMINFO, int(2 * GIB * 0.6)),
        (["max\n"], MEMINFO, 2 * GIB),
        (["9223372036854771712\n"], MEMINFO, 2 * GIB),
        ([], MEMINFO, 2 * GIB),
        ([], "", BUDGET_BYTES_MIN),
        (["", "garbage", "-1"], "MemTotal: garbage", BUDGET_BYTES_MIN),
        ([f"{64 << 20}"], MEMINFO, BUDGET_BYTES_MIN),
        ([f"{64 * GIB}"], MEMINFO, BUDGET_BYTES_MAX),
    ],
)
def test_formula(limits, meminfo, budget):
    assert auto_memory_bytes(limits, meminfo) == budget


@given(st.lists(st.text(max_size=20), max_size=4), st.text(max_size=60))
def test_always_in_bounds(limits, meminfo):
    assert BUDGET_BYTES_MIN <= auto_memory_bytes(limits, meminfo) <= BUDGET_BYTES_MAX


def test_limits_are_looked_for_in_the_group_and_all_its_parents():
    assert list(limit_files("0::/kubepods/pod1/c1\n")) == [
        "/sys/fs/cgroup/kubepods/pod1/c1/memory.max",
        "/sys/fs/cgroup/kubepods/pod1/memory.max",
        "/sys/fs/cgroup/kubepods/memory.max",
        "/sys/fs/cgroup/memory.max",
    ]
    assert list(limit_files("0::/\n")) == ["/sys/fs/cgroup/memory.max"]
    assert list(limit_files("0::/../../x\n"))[-1] == "/sys/fs/cgroup/memory.max"
    assert list(limit_files("5:cpu,cpuacct:/a\n4:memory:/a\n")) == [
        "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    assert list(limit_files("")) == []


def test_this_machine_has_a_budget():
    assert BUDGET_BYTES_MIN <= read_auto_memory_bytes() <= BUDGET_BYTES_MAX
