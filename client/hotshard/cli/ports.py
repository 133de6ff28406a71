"""Ports for servers that are started in a moment: nobody else is given them meanwhile.

A port that is merely free is given by the kernel to the next program that asks for any port, or that
connects somewhere. These ports lie outside the range from which the kernel gives, and processes that use
this module keep out of each other's way: each reserves blocks of ports, by an abstract Unix socket for
each. Such a socket belongs to the same network namespace as the ports, and is gone with the process.
"""

import errno
import os
import socket
import threading
from collections.abc import Iterator

_FIRST, _LAST = 10_000, 60_000  # below are well-known services
_BLOCK = 64
_EPHEMERAL = "/proc/sys/net/ipv4/ip_local_port_range"


class _Blocks:
    """The blocks that this process has reserved, and the ports in them that it has not given yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reserved: list[socket.socket] = []
        self.ports = self._ports()

    def forget(self) -> None:
        """Leave them to the process that forked us."""
        self.lock = threading.Lock()  # a thread that is not with us may have held it
        while self.reserved:
            self.reserved.pop().close()
        self.ports = self._ports()

    def _ports(self) -> Iterator[int]:
        blocks = range(_FIRST, _ephemeral_from() - _BLOCK, _BLOCK)
        for number in range(len(blocks)):
            first = blocks[(os.getpid() + number) % len(blocks)]
            if self._reserve(first):
                yield from range(first, first + _BLOCK)

    def _reserve(self, first: int) -> bool:
        held = socket.socket(socket.AF_UNIX)
        try:
            held.bind(f"\0hotshard ports from {first}")
        except OSError:
            held.close()
            return False
        self.reserved.append(held)
        return True


_ours = _Blocks()
os.register_at_fork(after_in_child=_ours.forget)


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Ports of an address of this machine: nobody listens there, and no other call gives them.

    Raises:
        OSError: all ports are taken, or the address is not one of this machine.
    """
    with _ours.lock:
        return [_next(host) for _ in range(count)]


def _next(host: str) -> int:
    for port in _ours.ports:
        with socket.socket() as sock:
            try:
                sock.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port
    raise OSError(errno.EADDRINUSE, f"no port of {host} is free")


def _ephemeral_from() -> int:
    """Where the kernel's own range begins; where it leaves no room below, ours lie in it."""
    with open(_EPHEMERAL, encoding="ascii") as file:
        first = int(file.read().split()[0])
    return first if first >= 2 * _FIRST else _LAST
