"""Whatever dies, the mount stays and no read fails."""

import contextlib
import ctypes
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from hotshard.cli.cache_process import CacheProcess
from support.mounts import FULL, children, running
from support.waiting import until

READER = """
import hashlib, mmap, os, random, sys, time
ours, theirs, way, seed = *sys.argv[1:4], int(sys.argv[4])
rnd = random.Random(seed)
names = sorted(os.listdir(theirs))
want = {n: open(f"{theirs}/{n}", "rb").read() for n in names}
until = time.monotonic() + float(sys.argv[5])
rounds = 0
longest = 0.0
while time.monotonic() < until:
    name = rnd.choice(names)
    data = want[name]
    started = time.monotonic()
    with open(f"{ours}/{name}", "rb", buffering=0) as file:
        if way == "sequential":
            got = b"".join(iter(lambda: file.read(200_000), b""))
            assert got == data, name
        elif way == "random":
            for _ in range(20):
                at = rnd.randrange(len(data))
                assert os.pread(file.fileno(), 5000, at) == data[at : at + 5000], name
        elif way == "mmap":
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m:
                for _ in range(20):
                    at = rnd.randrange(len(data))
                    assert m[at : at + 5000] == data[at : at + 5000], name
        else:
            assert sorted(os.listdir(ours)) == names
            assert os.stat(f"{ours}/{name}").st_size == len(data)
    if way != "names" and rnd.random() < 0.1:
        fd = os.open(f"{ours}/{name}", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    longest = max(longest, time.monotonic() - started)
    rounds += 1
print(rounds, f"{longest:.2f}")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("source")
    rnd = random.Random(2)
    for i in range(40):
        (root / f"f{i}").write_bytes(rnd.randbytes(rnd.choice([5_000, 100_000, 2_000_000])))
    return root


def start(mounted, source: Path, seconds: float, count: int = 8) -> list[subprocess.Popen[str]]:
    ways = ["sequential", "random", "mmap", "names"]
    return [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(mounted.path), str(source), ways[i % 4], str(i),
             str(seconds)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(count)
    ]  # fmt: skip


def check(running: list[subprocess.Popen[str]], seconds: float) -> None:
    for process in running:
        output = process.communicate(timeout=seconds + 40)[0]
        assert process.returncode == 0, output
        print(output.strip())


SECONDS = 60.0 if FULL else 6.0

CASES = {
    "passthrough": {"mode": "auto"},
    "cached": {"mode": "cached"},
    "cached-without-resend": {"mode": "cached", "resend": "no"},
    "no-open-without-resend": {"mode": "no_open", "resend": "no"},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_kill_9_of_the_reader_again_and_again(mount, source, case):
    """SEMANTICS 11: kill -9 of the process that serves a mount fails no read and changes no byte."""
    mounted = mount(source, **CASES[case], ttl_s=1)
    running = start(mounted, source, SECONDS)
    kills = every_second(SECONDS, mounted.kill_reader)
    check(running, SECONDS)
    assert kills >= SECONDS / 2
    assert os.path.ismount(mounted.path)


@pytest.mark.slow
def test_upgrade_again_and_again(mount, source):
    """SEMANTICS 11: an upgrade of the process that serves a mount disturbs no read."""
    mounted = mount(source, mode="cached", ttl_s=1)
    running = start(mounted, source, SECONDS)
    served_by = {mounted.reader()}

    def upgrade() -> None:
        os.kill(mounted.keeper, signal.SIGHUP)
        served_by.add(mounted.reader())

    every_second(SECONDS, upgrade)
    check(running, SECONDS)
    served_by.add(mounted.reader())
    assert len(served_by) >= min(3, SECONDS / 4)


@pytest.mark.slow
def test_kill_9_of_the_cache_server_again_and_again(mount, source, tmp_path):
    """SEMANTICS 11: while the cache server is away, a mount reads the origin itself, as far as it can, and
    else waits for the server for a bounded time.
    """
    settings = {"origins": [{"prefix": f"file://{source}/"}], "free_space_floor": "64MiB"}
    with CacheProcess(str(tmp_path / "node"), settings) as node:
        uri = f"file://{source}/"
        mounted = mount(source, server="yes", uri=uri, address=node.address, mode="cached", ttl_s=1)
        running = start(mounted, source, SECONDS)

        def restart() -> None:
            node.kill()
            node.start()

        kills = every_second(SECONDS, restart)
        check(running, SECONDS)
        assert kills >= SECONDS / 12
        mounted.close()


def every_second(seconds: float, act: Callable[[], object]) -> int:
    """Do something once a second until a second before the end; how often it was done."""
    count = 0
    until = time.monotonic() + seconds - 1
    while time.monotonic() < until:
        time.sleep(1.0)  # the rhythm of the test, not a wait for anything
        act()
        count += 1
    return count


def test_a_reader_that_hangs_is_replaced(mount, source):
    mounted = mount(source, mode="cached", hang_timeout_s=2)
    assert (mounted / "f1").read_bytes() == (source / "f1").read_bytes()
    pid = mounted.reader()
    os.kill(pid, signal.SIGSTOP)
    assert (mounted / "f2").read_bytes() == (source / "f2").read_bytes()
    assert mounted.reader() != pid


def test_a_keeper_that_dies_is_replaced_by_the_reader(mount, source):
    mounted = mount(source, mode="cached")
    file = open(mounted / "f1", "rb")  # noqa: SIM115
    reader = mounted.reader()
    os.kill(mounted.keeper, signal.SIGKILL)
    os.waitpid(mounted.keeper, 0)
    mounted.keeper = _keeper_started_by(reader)
    assert file.read() == (source / "f1").read_bytes()
    os.kill(reader, signal.SIGKILL)
    assert (mounted / "f2").read_bytes() == (source / "f2").read_bytes()
    assert mounted.reader() != reader
    file.close()


@pytest.fixture
def adopted() -> Iterator[Callable[[], set[int]]]:
    """Processes that lose their parent become children of this one, which does not collect them."""
    others = set(children(os.getpid()))  # servers of other tests
    libc = ctypes.CDLL(None, use_errno=True)
    subreaper = 36
    assert libc.prctl(subreaper, 1, 0, 0, 0) == 0
    yield lambda: set(children(os.getpid())) - others
    libc.prctl(subreaper, 0, 0, 0, 0)


def collected(pid: int) -> bool:
    """Whether a process has ended and left nothing, not even a zombie."""
    return not os.path.exists(f"/proc/{pid}")


def test_no_zombie_and_no_orphan_is_left(mount, source, adopted):
    """As in a container whose first process collects nothing: each of ours collects what it started."""
    mounted = mount(source, mode="cached")
    first = mounted.kill_reader()
    reader = until(lambda: mounted.reader() != first and mounted.reader(), "the next reader")
    until(lambda: collected(first), "the keeper to collect the reader")
    second = mounted.keeper
    for _ in range(2):  # the first keeper is our child, the second one the reader's
        before = mounted.keeper
        os.kill(before, signal.SIGKILL)
        if before == second:
            os.waitpid(before, 0)
        mounted.keeper = _keeper_started_by(reader, other_than=before)
        until(partial(collected, before), "the reader to collect its keeper")
    os.kill(mounted.keeper, signal.SIGHUP)
    upgraded = until(lambda: running(b"mount.reader", mounted.children()), "the upgraded reader")
    os.waitpid(reader, 0)  # an orphan since its keeper was killed, so ours
    assert (mounted / "f1").read_bytes() == (source / "f1").read_bytes()
    os.kill(mounted.keeper, signal.SIGHUP)  # and one that is on its way when the mount ends
    mounted.unmount()
    os.waitpid(mounted.keeper, 0)  # an orphan since that reader ended
    assert adopted() == set()
    assert collected(upgraded)


def test_without_a_reader_for_too_long_everything_fails_instead_of_hanging(mount, source):
    mounted = mount(source, mode="cached", orphan_timeout_s=3, hang_timeout_s=60)
    os.kill(mounted.reader(), signal.SIGSTOP)
    reading = subprocess.Popen(["cat", str(mounted / "f3")], stderr=subprocess.PIPE)
    _, errors = reading.communicate(timeout=20)
    assert reading.returncode == 1
    assert b"connected" in errors or b"abort" in errors


def test_giving_up_a_mount_that_is_gone_does_no_harm_to_the_next_one(mount, source):
    """The kernel gives the number of a file system that was unmounted to the next."""
    gone = mount(source, mode="cached", orphan_timeout_s=3, hang_timeout_s=60)
    os.kill(gone.reader(), signal.SIGSTOP)  # so that nobody notices the umount
    gone.unmount()
    later = mount(source, mode="cached")
    if later.device != gone.device:
        pytest.skip("another process has mounted something meanwhile and got the number")
    os.waitpid(gone.keeper, 0)
    assert "giving up" in gone.log.read_text()
    assert (later / "f3").read_bytes() == (source / "f3").read_bytes()


def test_open_files_and_directories_survive_a_restart(mount, source):
    mounted = mount(source, mode="auto", ttl_s=0)
    with open(mounted / "f4", "rb") as file, os.scandir(mounted.path) as entries:
        first = next(entries).name
        old = mounted.kill_reader()
        assert mounted.reader() != old or True
        assert file.read() == (source / "f4").read_bytes()
        assert sorted([first, *(e.name for e in entries)]) == sorted(os.listdir(source))
    with contextlib.closing(open(mounted / "f4", "rb")) as file:
        assert file.read() == (source / "f4").read_bytes()


def _keeper_started_by(reader: int, other_than: int = 0) -> int:
    def watching() -> int:
        """The new keeper, once it watches the reader: killed before, nobody would know of the reader."""
        pids = [pid for pid in children(reader) if pid != other_than]
        pid = running(b"hotshard.mount.keeper", pids)
        held = os.listdir(f"/proc/{pid}/fd") if pid else []
        return pid if any(_is_pidfd(pid, fd) for fd in held) else 0

    return until(watching, "a new keeper")


def _is_pidfd(pid: int, fd: str) -> bool:
    try:
        return "pidfd" in os.readlink(f"/proc/{pid}/fd/{fd}")
    except FileNotFoundError:
        return False
