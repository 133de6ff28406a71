"""What a run costs: wall clock, CPU of the processes that took part, peak memory of a process."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.results import BenchError

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Cost:
    """Seconds and CPU seconds between `with` and its end, of this process and of others by pid.

    This process counts with the children it has waited for: the client processes of a load.
    """

    others: Mapping[str, int] = field(default_factory=dict)
    """Who -> pid."""
    seconds: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=dict)

    def __enter__(self) -> "Cost":
        """Start the clocks."""
        self.cpu_s = self._cpu()
        self.seconds = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop them."""
        self.seconds = time.perf_counter() - self.seconds
        before = self.cpu_s
        self.cpu_s = {who: now - before[who] for who, now in self._cpu().items()}

    def _cpu(self) -> dict[str, float]:
        own = os.times()
        mine = own.user + own.system + own.children_user + own.children_system
        return {"client": mine, **{who: process_cpu_s(pid) for who, pid in self.others.items()}}


def process_cpu_s(pid: int) -> float:
    """CPU seconds a process has used so far, all threads."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        after_name = file.read().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S


def peak_rss_bytes(pid: int) -> int:
    """The most memory a process has held at one time, since it started or since `reset_peak_rss`."""
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has no peak memory in /proc (is it still running?)")


def reset_peak_rss(pid: int) -> None:
    """Forget the peak so far."""
    with open(f"/proc/{pid}/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")
