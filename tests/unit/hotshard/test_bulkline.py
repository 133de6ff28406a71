"""The receiving end of a bulk port, against a socket that sends when it likes."""

import fcntl
import random
import socket
import struct
import termios
import threading

import pytest

from hotshard.bulkline import BUFFER_BYTES, BulkLine
from support.waiting import until

KIB = 1 << 10


def queued(sock: socket.socket, of: int) -> int:
    """Bytes that the other kernel has not acknowledged, or that have come and were not received yet."""
    return int(struct.unpack("i", fcntl.ioctl(sock, of, bytes(4)))[0])


@pytest.mark.parametrize(
    "more", [1, 4 * KIB, 300 * KIB, 512 * KIB, BUFFER_BYTES, 7 * BUFFER_BYTES + 1]
)
@pytest.mark.parametrize("last", [1, 100 * KIB])
def test_a_payload_that_comes_in_parts_is_received_however_small_the_last_one_is(more, last):
    data = random.Random(more).randbytes(BUFFER_BYTES + more)
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = BulkLine(*listener.getsockname(), connect_s=5)
        sender, _ = listener.accept()
        wait = threading.Thread(target=line.payload, args=(len(data), received.extend, 20.0))
        with sender:
            wait.start()
            sender.sendall(data[:-last])
            until(
                lambda: queued(sender, termios.TIOCOUTQ) == queued(line.sock, termios.FIONREAD) == 0
            )
            sender.sendall(data[-last:])
            wait.join(10)
            assert not wait.is_alive()
        line.close()
    assert received == data
