"""`python -m benchmarks profile ROW`: where the CPU goes while our side of a row runs.

The row's side is called over and over while two samplers watch this process and all that the row started
(servers, client processes, mounts): py-spy, which knows the functions of Python, and perf, which knows
those of the kernel and of libraries. Both count what is on a CPU. They need root, the package `py-spy` and
the program `perf`; one that is not there is left out, and said.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.bench import Bench, Row
from benchmarks.results import BenchError

_RATE = 199  # samples a second; no divisor of anything periodic
_STOP_S = 30.0
_LOOK_AROUND_S = 1.0  # py-spy looks through the processes first
LINES = 20
_OURS = "benchmark"
_PROCESS = re.compile(r"process \d+:\"?(?P<command>.*?)\"?$")
_MODULE = re.compile(r"-m (\S+)")


@dataclass(frozen=True, slots=True)
class Profile:
    """Shares of all samples, most first."""

    python: Sequence[tuple[str, float]]
    """Functions of Python that were on top of a stack, by program."""
    system: Sequence[tuple[str, float]]
    """Functions of the kernel and of libraries."""
    runs: int
    """How often the side ran."""


def profile(row: Row, bench: Bench, *, seconds: float) -> Profile:
    """Run a row's side again and again for so long, and look.

    Raises:
        BenchError: neither sampler is there, or the row cannot be run.
    """
    with tempfile.TemporaryDirectory(prefix="profile-", dir=bench.directory) as directory:
        work = os.path.join(directory, row.name)
        os.makedirs(work)
        with row.open(replace(bench, directory=work)) as sides:
            if row.warm_up:
                sides.ours()
            runs, until = 0, time.monotonic() + seconds
            with _samplers(directory, work):
                while time.monotonic() < until:
                    sides.ours()
                    runs += 1
        python, system = _python(directory), _system(directory)
    return Profile(_shares(python), _shares(system), runs)


@contextlib.contextmanager
def _samplers(directory: str, work: str) -> Iterator[None]:
    """All samplers while the block runs."""
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"
    tree, outside = _processes(work)
    commands: list[tuple[str, ...]] = [
        (
            "py-spy", "record", "--pid", str(pid), "--subprocesses", "--rate", str(_RATE), "--nonblocking",
            "--duration", "unlimited", "--format", "raw", "--output", f"{directory}/spy-{pid}",
        )
        for pid in (os.getpid(), *outside)
    ]  # fmt: skip
    pids = ",".join(map(str, (*tree, *outside)))
    commands.append(
        ("perf", "record", "-q", "-F", str(_RATE), "-p", pids, "-o", f"{directory}/perf")
    )
    running = []
    for command in commands:
        program = shutil.which(command[0], path=path)
        if program is None:
            sys.stderr.write(f"  {command[0]}: not installed, left out\n")
            continue
        quiet = subprocess.DEVNULL
        running.append(subprocess.Popen([program, *command[1:]], stdout=quiet, stderr=quiet))
    if not running:
        raise BenchError("a profile needs py-spy (pip install py-spy) or perf (package linux-perf)")
    try:
        time.sleep(_LOOK_AROUND_S)
        yield
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _processes(work: str) -> tuple[list[int], list[int]]:
    """This process with all below it, and those elsewhere that name the row's directory: mounts."""
    parents: dict[int, int] = {}
    named: set[int] = set()
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):  # it has ended
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
            with open(f"/proc/{name}/cmdline", encoding="utf-8", errors="replace") as file:
                if work in file.read():
                    named.add(int(name))
    tree = {os.getpid()}
    while found := {pid for pid, parent in parents.items() if parent in tree} - tree:
        tree |= found
    outside = named - tree
    return sorted(tree), sorted(pid for pid in outside if parents[pid] not in outside)


def _python(directory: str) -> Counter[str]:
    """Samples of py-spy by process and function on top of the stack."""
    found: Counter[str] = Counter()
    for name in os.listdir(directory):
        if not name.startswith("spy-"):
            continue
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as lines:
            for line in lines:
                stack, _, times = line.rstrip().rpartition(" ")
                if not times.isdecimal():  # a program of several lines, in the name of a process
                    continue
                frames = stack.split(";")
                if "<frozen importlib" in stack:  # the start of a process, in rows that start cold
                    frames.append("imports")
                leaf = re.sub(r":\d+\)$", ")", frames[-1])
                found[f"{_who(frames)}: {leaf}"] += int(times)
    return found


def _who(frames: Sequence[str]) -> str:
    """The process of a stack, in a word: the innermost that py-spy names."""
    commands = [match["command"] for frame in frames if (match := _PROCESS.match(frame))]
    command = commands[-1] if commands else ""
    module = _MODULE.search(command)
    if module and not module[1].startswith("benchmarks"):
        return module[1]
    return "client process" if "multiprocessing" in command else _OURS


def _system(directory: str) -> Counter[str]:
    """Samples of perf by library or kernel, and function."""
    path = os.path.join(directory, "perf")
    if not os.path.exists(path):
        return Counter()
    report = subprocess.run(
        ["perf", "script", "-i", path, "-F", "comm,ip,sym,dso"],
        capture_output=True, text=True, check=False, errors="replace",
    ).stdout  # fmt: skip
    found: Counter[str] = Counter()
    for line in report.splitlines():
        match = re.match(r"\s*(.+?)\s+[0-9a-f]+ (.+?) \((.*?)\)$", line)
        if match:
            where = (
                "kernel"
                if "kernel" in match[3] or match[3].endswith(".ko")
                else os.path.basename(match[3])
            )
            found[f"{where}: {match[2].partition('+')[0]}"] += 1
    return found


def _shares(samples: Counter[str]) -> list[tuple[str, float]]:
    total = samples.total() or 1
    return [(name, count / total) for name, count in samples.most_common(LINES)]
