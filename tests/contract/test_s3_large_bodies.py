"""Large bodies, of which the kernel gathers pieces: right bytes, however they come."""

import fcntl
import os
import random
import socket
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from cache_server.origins.origin import Target
from hotshard.core.checksum import Algorithm, checksum
from support import faulty_http as faulty
from support.faulty_http import Scripted, Seen, scripted
from support.s3_origin import fetch, opened, want_of

KIB = 1 << 10
MIB = 1 << 20


@pytest.fixture
def server(credentials: None) -> Iterator[Scripted]:
    with scripted(random.Random(5).randbytes(5 * MIB + 4321)) as state:
        yield state


async def test_large_and_small_bodies_in_turn_on_one_connection(
    server: Scripted, target: Target
) -> None:
    lengths = [5 * MIB, 10, MIB - 1, MIB, MIB + 1, 256 * KIB, MIB + 256 * KIB, 3 * MIB + 17, 1]
    async with opened(server.url, read_timeout_s=20.0) as (origin, outcomes):
        for length in lengths:
            fetched, got = await fetch(origin, want_of(server, 4321, length), target)
            assert got == server.body[4321 : 4321 + length]
            assert fetched.checksum == checksum(Algorithm.XXH3_64, got)
        assert outcomes == [f"GET ok {length}" for length in lengths]
    assert server.connections == 1


@pytest.mark.parametrize("last", [1, 100 * KIB, 700 * KIB, 2 * MIB])
async def test_the_rest_is_received_however_small_it_is(
    server: Scripted, target: Target, last: int
) -> None:
    """What is before it has been received by then: nothing that is there already wakes anybody up."""

    def behave(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
        with _asker(sock) as asker:
            sock.sendall(server.head(seen, 200, len(server.body)) + server.body[:-last])
            _until_received(asker)
            sock.sendall(server.body[-last:])
        return True

    server.script.append(behave)
    async with opened(server.url, read_timeout_s=20.0) as (origin, outcomes):
        assert (await fetch(origin, want_of(server), target))[1] == server.body
        assert outcomes == [f"GET ok {len(server.body)}"]


@pytest.mark.parametrize(
    "behaviour",
    [faulty.reset_mid_body, faulty.short_body, faulty.long_body],
    ids=lambda behaviour: behaviour.__name__,
)
async def test_faults_of_a_large_body(
    server: Scripted, target: Target, behaviour: faulty.Behaviour
) -> None:
    server.script.append(behaviour)
    async with opened(server.url, read_timeout_s=20.0) as (origin, outcomes):
        for _ in range(2):
            assert (await fetch(origin, want_of(server), target))[1] == server.body
        tries = 1 if behaviour is faulty.long_body else 2
        assert len(outcomes) == tries + 1
        assert set(outcomes[tries - 1 :]) == {f"GET ok {len(server.body)}"}
    assert server.connections == 2


async def test_silence_in_a_large_body_is_found_out(server: Scripted, target: Target) -> None:
    def behave(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
        sock.sendall(server.head(seen, 200, len(server.body)) + server.body[: 2 * MIB])
        return faulty.silent(server, seen, sock)

    server.script.append(behave)
    async with opened(server.url, read_timeout_s=1.0) as (origin, outcomes):
        assert (await fetch(origin, want_of(server), target))[1] == server.body
        assert (outcomes[0], outcomes[-1]) == ("GET retry 0", f"GET ok {len(server.body)}")


async def test_what_is_less_than_a_piece_is_a_sign_of_life(
    server: Scripted, target: Target
) -> None:
    """It comes again and again within the time for each read, and never wakes anybody up."""
    middle = 2 * MIB

    def behave(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
        sock.sendall(server.head(seen, 200, len(server.body)) + server.body[:middle])
        for at in range(middle, middle + 10):
            time.sleep(0.25)  # this server is slow
            sock.sendall(server.body[at : at + 1])
        sock.sendall(server.body[middle + 10 :])
        return True

    server.script.append(behave)
    async with opened(server.url, read_timeout_s=2.0) as (origin, outcomes):
        assert (await fetch(origin, want_of(server), target))[1] == server.body
        assert outcomes == [f"GET ok {len(server.body)}"]


async def test_pieces_are_small_beside_the_receive_window(server: Scripted, target: Target) -> None:
    """A piece as large as the window would stop the sender for a round trip each time."""
    low_waters: list[int] = []
    rooms: list[int] = []

    def behave(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
        with _asker(sock) as asker:
            asker.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * KIB)  # it grows no more
            rooms.append(asker.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
            sock.sendall(server.head(seen, 200, len(server.body)))
            for at in range(0, len(server.body), 64 * KIB):
                sock.sendall(server.body[at : at + 64 * KIB])
                low_waters.append(asker.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT))
        return True

    server.script.append(behave)
    async with opened(server.url, read_timeout_s=20.0) as (origin, outcomes):
        assert (await fetch(origin, want_of(server), target))[1] == server.body
        assert outcomes == [f"GET ok {len(server.body)}"]
    assert max(low_waters) == rooms[0] // 8


async def test_pieces_are_written_at_multiples_of_64_kib(
    server: Scripted, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others cost the page cache half as much again (docs/adr/0009)."""
    offsets: list[int] = []
    pwrite = os.pwrite

    def noted(fd: int, data: memoryview, offset: int) -> int:
        if fd == target.fd:
            offsets.append(offset)
        return pwrite(fd, data, offset)

    def behave(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
        sock.sendall(server.head(seen, 200, len(server.body)))
        for at in range(0, len(server.body), 99_999):
            sock.sendall(server.body[at : at + 99_999])
        return True

    server.script.append(behave)
    monkeypatch.setattr(os, "pwrite", noted)
    async with opened(server.url, read_timeout_s=20.0) as (origin, _):
        assert (await fetch(origin, want_of(server), target))[1] == server.body
    assert len(offsets) >= len(server.body) // MIB
    assert [offset % (64 * KIB) for offset in offsets] == [0] * len(offsets)


def _asker(sock: socket.socket) -> socket.socket:
    """The other end of a connection within this process."""
    for name in os.listdir("/proc/self/fd"):
        try:
            found = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # no socket, or closed meanwhile
        if found.family == sock.family and found.getsockname() == sock.getpeername():
            return found
        found.close()
    raise AssertionError("nobody asked")


def _until_received(asker: socket.socket) -> None:
    """Until less is waiting than wakes anybody up."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        least = asker.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)
        waiting = struct.unpack("i", fcntl.ioctl(asker, termios.FIONREAD, bytes(4)))[0]
        if waiting < least:
            return
        time.sleep(0.01)
    raise AssertionError("what came was not received")
