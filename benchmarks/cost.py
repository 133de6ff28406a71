"""What a run costs: wall clock, CPU of the processes that took part, peak memory of a process."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.results import BenchError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Cost:
    """Seconds and CPU seconds inside `with`, of this process and of others by pid; several add up.

    This process counts with the children it has waited for: the client processes of a load.
    """

    others: Mapping[str, int] = field(default_factory=dict)
    """Who -> pid."""
    seconds: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)
    _begun: float = 0.0
    _cpu_begun: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> "Cost":
        """Start the clocks."""
        self._cpu_begun = self._cpu()
        self._begun = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self.seconds += time.perf_counter() - self._begun
        for who, now in self._cpu().items():
            self.cpu_s[who] = self.cpu_s.get(who, 0.0) + now - self._cpu_begun[who]

    def _cpu(self) -> dict[str, float]:
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return {"client": mine, **{who: process_cpu_s(pid) for who, pid in self.others.items()}}


def process_cpu_s(pid: int) -> float:
    """CPU seconds a process has used so far, all threads."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        after_name = file.read().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """The memory a process holds."""
    return _status_bytes(pid, "VmRSS:")


def peak_rss_bytes(pid: int) -> int:
    """The most memory it has held at one time since it started."""
    return _status_bytes(pid, "VmHWM:")


def _status_bytes(pid: int, key: str) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith(key):
                return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has no {key} in /proc (is it still running?)")
