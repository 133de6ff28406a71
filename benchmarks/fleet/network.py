"""Several hosts on one machine: network namespaces on a bridge, each with an address of its own.

A namespace lives as long as the process that holds it; veth pairs, bridge ports and routes die with it.
Holders are killed by the kernel when we die, so nothing is left behind, however a test ends. Needs root.

Partitions are silent, as a cut cable is: a neighbour is given a link address that nobody has, so packets
leave and never arrive. Latency and loss are made by a process between the host and the bridge (`worse`),
because netem is not in every kernel.
"""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from hotshard.cli.child import Child

_numbers = itertools.count()
NOBODY = "02:00:00:00:de:ad"
_ENTER = Path(__file__).parent / "enter.py"
_ROOT = Path(__file__).parent.parent.parent
_HOLDER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x40000000):  # CLONE_NEWNET
    raise OSError(ctypes.get_errno(), "unshare")
print("up", flush=True)
sys.stdin.read()
"""


def unavailable() -> str:
    """Why there can be no namespaces here; empty: there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network(1):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces do not work here: {error}"


class Host:
    """One namespace with one address."""

    def __init__(self, number: int, address: str, pid: int) -> None:
        self.number = number
        self.address = address
        self.pid = pid
        """Of the process that holds it."""

    def program(self, module: str) -> Sequence[str]:
        """Arguments of the Python that runs a module on this host."""
        return (str(_ENTER), str(self.pid), module)

    def run(self, *command: str) -> str:
        """Run a command there."""
        return _run("nsenter", f"--net=/proc/{self.pid}/ns/net", *command)

    def drop_to(self, *addresses: str) -> None:
        """From now on nothing that is sent to these arrives."""
        for address in addresses:
            self.run("ip", "neigh", "replace", address, "lladdr", NOBODY, "dev", "eth0")

    def restore_to(self, *addresses: str) -> None:
        """Send to these as usual again."""
        for address in addresses:
            self.run("ip", "neigh", "del", address, "dev", "eth0")


class Network:
    """The bridge, ourselves at address .1, and hosts from .10 on."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stack = ExitStack()
        self._net = f"10.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
        self.address = f"{self._net}.1"
        """Ours: what the hosts reach the test's own servers at."""
        self.hosts: list[Host] = []
        self._switch = 0

    def __enter__(self) -> "Network":
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make(self) -> None:
        self._switch = self._hold()
        self._in_switch("ip", "link", "add", "br0", "type", "bridge")
        self._in_switch("ip", "link", "set", "br0", "up")
        ours = f"hs{os.getpid()}.{next(_numbers)}"  # the kernel takes its time with the last one
        self._stack.callback(_run, "ip", "link", "del", ours)
        self._plug(ours, "us", f"{self.address}/24", os.getpid())
        for _ in range(self._count):
            self.add()

    def add(self) -> Host:
        """One more host."""
        number = len(self.hosts)
        host = Host(number, f"{self._net}.{10 + number}", self._hold())
        self._plug("eth0", f"p{number}", f"{host.address}/24", host.pid)
        host.run("ip", "link", "set", "lo", "up")
        self.hosts.append(host)
        return host

    def unplug(self, host: Host) -> None:
        """Pull its cable."""
        self._in_switch("ip", "link", "set", f"p{host.number}", "down")

    def plug(self, host: Host) -> None:
        """Put it back."""
        self._in_switch("ip", "link", "set", f"p{host.number}", "up")

    def cut(self, one: Host, others: Sequence[str]) -> None:
        """Cut a host off from some addresses, both ways where the others are hosts."""
        one.drop_to(*others)
        for host in self.hosts:
            if host.address in others:
                host.drop_to(one.address)

    def mend(self, one: Host, others: Sequence[str]) -> None:
        """Undo `cut`."""
        one.restore_to(*others)
        for host in self.hosts:
            if host.address in others:
                host.restore_to(one.address)

    @contextlib.contextmanager
    def worse(self, host: Host, *, delay_s: float, loss: float) -> Iterator[None]:
        """For a while, everything to and from a host is late by half of `delay_s`, or lost."""
        host.run("ip", "link", "set", "eth0", "down")
        host.run("ip", "link", "set", "eth0", "name", "cable")
        host.run("ip", "addr", "flush", "dev", "cable")
        wire = Child(
            [
                *host.program("benchmarks.fleet.wire"),
                f"{host.address}/24",
                str(delay_s / 2),
                str(loss),
            ],
            environment={**os.environ, "PYTHONPATH": str(_ROOT)},
            talks=True,
        )
        try:
            if wire.hear().strip() != "up":
                raise OSError("the bad wire did not come up")
            yield
        finally:
            wire.stop()
            host.run("ip", "link", "set", "cable", "down")
            host.run("ip", "link", "set", "cable", "name", "eth0")
            host.run("ip", "addr", "replace", f"{host.address}/24", "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")

    def _hold(self) -> int:
        holder = Child(["-c", _HOLDER], talks=True)
        self._stack.callback(holder.stop)
        if holder.hear().strip() != "up":
            raise OSError("a network namespace could not be made")
        return holder.pid

    def _plug(self, name: str, port: str, address: str, pid: int) -> None:
        """A cable from the bridge to a namespace."""
        ns = ("netns", str(pid))
        self._in_switch("ip", "link", "add", port, "type", "veth", "peer", "name", name, *ns)
        self._in_switch("ip", "link", "set", port, "master", "br0", "up")
        enter = () if pid == os.getpid() else ("nsenter", f"--net=/proc/{pid}/ns/net")
        _run(*enter, "ip", "addr", "add", address, "dev", name)
        _run(*enter, "ip", "link", "set", name, "up")

    def _in_switch(self, *command: str) -> None:
        _run("nsenter", f"--net=/proc/{self._switch}/ns/net", *command)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
