"""The node's keeper by its socket: a real process, real descriptors."""

import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from hotshard.csi import keeper as program
from hotshard.csi.keeper_line import KeeperLine, NoKeeper, Refused
from support.kubernetes_node import KubernetesNode
from support.waiting import until

AT = 8


@pytest.fixture
def line(node: KubernetesNode) -> Iterator[KeeperLine]:
    node.keeper(orphan_timeout_s=600)
    one = KeeperLine(node.options.keeper_socket)
    one.connect()
    yield one
    one.close()


class Kept:
    """Stands for a mount: a pipe whose other end tells who still holds it, and a memory file."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.state = os.memfd_create("state")
        os.ftruncate(self.state, mmap.PAGESIZE)
        self.beat()

    def beat(self) -> None:
        os.pwrite(self.state, struct.pack("<Q", time.monotonic_ns()), AT)

    @property
    def fds(self) -> list[int]:
        return [self.write, self.state]

    def only_kept(self) -> None:
        """Let go of it ourselves."""
        os.close(self.write)

    def lost(self) -> bool:
        """Nobody has the other end any more."""
        poll = select.poll()
        poll.register(self.read, 0)
        return any(events & select.POLLHUP for _, events in poll.poll(0))


def same(one: int, other: int) -> bool:
    return os.path.samestat(os.fstat(one), os.fstat(other))


def test_put_get_list_drop(line):
    kept = Kept()
    line.put("a", AT, kept.fds)
    kept.only_kept()
    assert line.names() == ["a"]
    for _ in range(3):
        got = line.get("a")
        assert len(got) == 2
        assert same(got[1], kept.state)
        assert not os.get_inheritable(got[0])
        for fd in got:
            os.close(fd)
    assert not kept.lost()
    line.drop("a")
    assert kept.lost()
    assert line.names() == []
    with pytest.raises(Refused, match="no such mount"):
        line.get("a")
    line.drop("a")


def test_what_is_put_again_replaces_what_was_held(line):
    one, other = Kept(), Kept()
    line.put("a", AT, one.fds)
    one.only_kept()
    line.put("a", AT, other.fds)
    assert one.lost()
    assert same(line.get("a")[1], other.state)


def test_the_number_of_mounts_is_limited(line):
    kept = Kept()
    for number in range(program.MOUNTS_MAX):
        line.put(f"m{number}", AT, kept.fds)
    with pytest.raises(Refused, match="room"):
        line.put("one-more", AT, kept.fds)
    line.put("m0", AT, kept.fds)
    line.drop("m1")
    line.put("one-more", AT, kept.fds)
    assert len(line.names()) == program.MOUNTS_MAX


def test_requests_that_make_no_sense_cost_nothing(line, node):
    kept = Kept()
    with pytest.raises(Refused):
        line.put("x" * 200, AT, kept.fds)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(node.options.keeper_socket)
        for message in (b"?", b"PUT a", b"PUT a b", b"PUT a -1", b"GET", b"LIST x", b"\xff\0", b"DROP",
                        b"x" * 10_000):  # fmt: skip
            sock.send(message)
            assert sock.recv(100).startswith(b"NO")
            socket.send_fds(sock, [message], [kept.write] * 3)
            assert sock.recv(100).startswith((b"NO", b"OK") if message == b"PUT a 1" else b"NO")
        socket.send_fds(sock, [b"PUT many 8"], [kept.write] * (program.DESCRIPTORS_MAX + 1))
        assert sock.recv(100).startswith(b"NO")
    kept.only_kept()
    assert until(kept.lost, "the keeper to close what it refused")
    assert line.names() == []


def test_the_number_of_connections_is_limited(line, node):
    lines = []
    for _ in range(program.LINES_MAX - 1):
        lines.append(KeeperLine(node.options.keeper_socket))
        lines[-1].connect()
        assert lines[-1].names() == []
    one_more = KeeperLine(node.options.keeper_socket)
    one_more.connect()
    with pytest.raises(NoKeeper):
        one_more.names()
    lines.pop().close()
    until(lambda: _works(one_more), "room for a connection")
    for each in (*lines, one_more):
        each.close()


def _works(line: KeeperLine) -> bool:
    try:
        line.connect()
        return line.names() == []
    except NoKeeper:
        return False


def test_other_users_are_not_let_in(line, node):
    for directory in (node.root, node.root / "keep"):
        directory.chmod(0o755)
    script = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(sys.argv[1])\n"
    )
    command = [sys.executable, "-c", script, node.options.keeper_socket]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "PermissionError" in run.stderr


def test_what_the_kernel_has_ended_is_let_go(line):
    kept = Kept()
    line.put("a", AT, kept.fds)
    os.close(kept.read)  # a pipe nobody reads shows an error, as the device of a dead mount does
    until(lambda: line.names() == [], "the keeper to notice")


def test_what_nobody_serves_for_too_long_is_let_go(node):
    node.keeper(orphan_timeout_s=1.5)
    line = KeeperLine(node.options.keeper_socket)
    line.connect()
    alive, silent = Kept(), Kept()
    line.put("alive", AT, alive.fds)
    line.put("silent", AT, silent.fds)
    silent.only_kept()

    def gone() -> bool:
        alive.beat()
        return silent.lost()

    until(gone, "the keeper to let go")
    assert line.names() == ["alive"]
    line.close()


def test_a_new_keeper_takes_the_place_of_the_old_one(line, node):
    before = node.pods[-1]
    node.keeper()
    line.connect()
    assert line.connected
    before.kill()
    assert line.names() == []
    node.pods[-1].kill()
    assert not line.connected
    with pytest.raises(NoKeeper):
        line.connect()


def test_it_loads_nothing_of_hotshard_and_takes_little_memory(line, node):
    with open(f"/proc/{node.pods[-1].pid}/maps", encoding="ascii", errors="replace") as maps:
        loaded = maps.read()
    assert "site-packages" not in loaded
    with open(f"/proc/{node.pods[-1].pid}/status", encoding="ascii") as status:
        fields = dict(row.split(":", 1) for row in status)
    print("VmRSS", fields["VmRSS"].strip())
    assert int(fields["VmRSS"].split()[0]) < 16 * 1024
