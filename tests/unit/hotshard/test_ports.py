import os
import socket
import subprocess
import sys

import pytest

from hotshard.cli import ports
from hotshard.cli.ports import free_ports

TAKE = "from hotshard.cli.ports import free_ports; print(*free_ports(150), flush=True); input()"


def test_no_port_is_given_twice_whoever_asks():
    others = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(3)
    ]
    try:
        given = free_ports(150)
        for other in others:
            assert other.stdout is not None
            given += map(int, other.stdout.readline().split())
    finally:
        for other in others:
            other.communicate("\n")
    assert len(set(given)) == len(given) == 600


def test_a_forked_process_has_ports_of_its_own():
    before = free_ports(1)
    parent, child = socket.socketpair()
    with parent, child:
        pid = os.fork()
        if pid == 0:
            child.send(" ".join(map(str, free_ports(70))).encode())
            child.recv(1)  # they are its own until it ends
            os._exit(0)
        theirs = [int(port) for port in parent.recv(4096).split()]
        ours = free_ports(70)
        parent.send(b".")
        os.waitpid(pid, 0)
    assert len(theirs) == 70
    assert not set(theirs) & {*before, *ours}


@pytest.fixture
def nothing_reserved(monkeypatch):
    blocks = ports._Blocks()
    monkeypatch.setattr(ports, "_ours", blocks)
    yield
    blocks.forget()


def test_a_port_on_which_somebody_listens_is_left_out(nothing_reserved):
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port + 1)):
        assert free_ports(1)[0] > port + 1


def test_none_is_one_that_the_kernel_gives_to_a_connection():
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first, last = map(int, file.read().split())
    if first < 20_000:
        pytest.skip(f"the kernel gives ports from {first} on: there is no room below")
    assert not [port for port in free_ports(50) if first <= port <= last]


def test_an_address_that_is_not_ours_is_an_error():
    with pytest.raises(OSError, match="assign"):
        free_ports(1, "192.0.2.1")


def test_the_ports_end(monkeypatch, nothing_reserved):
    monkeypatch.setattr(ports, "_ephemeral_from", lambda: ports._FIRST + 2 * ports._BLOCK)
    with pytest.raises(OSError, match="no port"):
        free_ports(200)
