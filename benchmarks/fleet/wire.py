"""A bad wire: stands between a host's network and its cable, delays every packet and loses some.

Runs inside the host's namespace: wire.py <address/bits> <seconds one way> <loss 0..1>. The host talks
through a TAP device that takes the name eth0; frames go through here to and from the cable. The cable's
own link address is given to the TAP, so the rest of the network sees the same host.
"""

import fcntl
import heapq
import itertools
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

TUNSETIFF = 0x400454CA
IFF_TAP_NO_PI = 0x1002
ETH_P_ALL = 3
PACKET_OUTGOING = 4


def ip(*arguments: str) -> None:
    """Change the network of this host."""
    subprocess.run(["ip", *arguments], check=True)


def main() -> None:
    """Be the wire until killed."""
    address, delay_s, loss = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    shown = subprocess.run(
        ["ip", "-o", "link", "show", "cable"], check=True, capture_output=True, text=True
    ).stdout
    mac = shown.partition("link/ether ")[2].split()[0]
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TAP_NO_PI))
    ip("link", "set", "eth0", "address", mac)
    ip("addr", "add", address, "dev", "eth0")
    ip("link", "set", "eth0", "up")
    ip("link", "set", "cable", "promisc", "on", "up")
    cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    cable.bind(("cable", 0))
    os.set_blocking(tap, False)
    cable.setblocking(False)
    print("up", flush=True)
    late: list[tuple[float, int, bool, bytes]] = []
    numbers = itertools.count()
    poll = select.poll()
    poll.register(tap, select.POLLIN)
    poll.register(cable, select.POLLIN)
    while True:
        wait_s = late[0][0] - time.monotonic() if late else 1.0
        for fd, _ in poll.poll(max(0.0, wait_s) * 1000):
            outward = fd == tap
            for frame in frames(tap if outward else None, cable):
                if random.random() >= loss:
                    due = time.monotonic() + delay_s
                    heapq.heappush(late, (due, next(numbers), outward, frame))
        while late and late[0][0] <= time.monotonic():
            *_, outward, frame = heapq.heappop(late)
            try:
                if outward:
                    cable.send(frame)
                else:
                    os.write(tap, frame)
            except OSError:
                pass  # lost


def frames(tap: int | None, cable: socket.socket) -> Iterator[bytes]:
    """What has come, from the host (tap) or from the network."""
    for _ in range(64):
        try:
            if tap is not None:
                yield os.read(tap, 65536)
            else:
                frame, where = cable.recvfrom(65536)
                if where[2] != PACKET_OUTGOING:
                    yield frame
        except BlockingIOError:
            return


if __name__ == "__main__":
    main()
