"""Readers at the servers of a fleet, in threads of this process: what they saw, and when.

Every byte is checked. `read_all` reads everything once; `reading` goes on while things happen to the
servers.
"""

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import xxhash

import hotshard
from benchmarks.fleet.fleet import Server
from hotshard.options import ConnectOptions

PIECE_BYTES = 8 << 20
JOIN_S = 60.0
OPTIONS: ConnectOptions = {"files_max": 64, "direct": "never", "reconnect_s": 30.0}
"""Of many clients in one process, that read through the servers only."""


def digest(data: bytes | memoryview) -> str:
    """What content is compared by."""
    return xxhash.xxh3_128_hexdigest(data)


@dataclass(frozen=True, slots=True)
class Read:
    """One object read whole."""

    began_s: float
    """By the monotonic clock."""
    took_s: float
    server: str


@dataclass
class Load:
    """What the readers saw."""

    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)

    def problems(self) -> list[str]:
        """Wrong bytes and failed reads; no reads at all are a problem, too."""
        return [*self.wrong, *self.failed[:5]] or ([] if self.reads else ["nothing was read"])

    def p99_s(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The 99th percentile of reads that began in this time; 0 if there were none."""
        seconds = sorted(read.took_s for read in self.reads if since <= read.began_s < until)
        return seconds[int(0.99 * (len(seconds) - 1))] if seconds else 0.0

    def longest_s(self) -> float:
        """The longest read."""
        return max(read.took_s for read in self.reads)

    def slower(
        self, than_s: float, since: float = 0.0, until: float = float("inf"), server: str = ""
    ) -> tuple[int, int]:
        """Of the reads that began in this time, at one server or at all: how many took longer, and all."""
        took = [
            read.took_s
            for read in self.reads
            if since <= read.began_s < until and server in ("", read.server)
        ]
        return sum(seconds > than_s for seconds in took), len(took)

    def recovered_s(self, event_s: float, slow_s: float) -> float:
        """From an event to the end of the last read after it that took longer than `slow_s`."""
        ends = [
            read.began_s + read.took_s
            for read in self.reads
            if read.took_s > slow_s and read.began_s + read.took_s > event_s
        ]
        return max(ends, default=event_s) - event_s


class _Reader:
    """Reads objects through one client, and takes down how it went."""

    def __init__(self, server: Server, expected: Mapping[str, str], load: Load) -> None:
        self._server = server
        self._expected = expected
        self._load = load
        self._buffer = memoryview(bytearray(PIECE_BYTES))

    def read(self, cache: hotshard.Client, uri: str) -> None:
        """One object, whole, piece by piece."""
        began_s = time.monotonic()
        total, offset = xxhash.xxh3_128(), 0
        try:
            while count := cache.read_into(uri, self._buffer, offset=offset):
                total.update(self._buffer[:count])
                offset += count
                if count < PIECE_BYTES:
                    break
            if total.hexdigest() != self._expected[uri]:
                self._load.wrong.append(f"{self._server.name}: {uri}: wrong bytes")
        except hotshard.HotshardError as error:
            took_s = time.monotonic() - began_s
            name = type(error).__name__
            self._load.failed.append(f"{self._server.name}: after {took_s:.1f} s: {name}: {error}")
        took_s = time.monotonic() - began_s
        self._load.reads.append(Read(began_s, took_s, self._server.name))


@contextmanager
def reading(
    servers: Sequence[Server],
    expected: Mapping[str, str],
    *,
    each: int = 1,
    pause_s: float = 0.005,
    seed: int = 1,
) -> Iterator[Load]:
    """So many readers at each of these servers, in shuffled epochs, until the end of the block.

    A server that is gone is waited for, as its clients do: that is a long read, not a failed one.
    """
    load, ended = Load(), threading.Event()
    uris = sorted(expected)

    def run(server: Server, number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        reader = _Reader(server, expected, load)
        with hotshard.connect(server.address, **OPTIONS) as cache:
            while not ended.is_set():
                for uri in dice.sample(uris, len(uris)):
                    if ended.is_set():
                        break
                    reader.read(cache, uri)
                    ended.wait(pause_s)

    threads = [
        threading.Thread(target=run, args=(server, number), daemon=True)
        for number, server in enumerate(server for server in servers for _ in range(each))
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        ended.set()
        for thread in threads:
            thread.join(JOIN_S)
        if any(thread.is_alive() for thread in threads):
            load.failed.append("a read hangs")


def read_all(
    servers: Sequence[Server], expected: Mapping[str, str], *, each: int = 1, copies: int = 0
) -> Load:
    """Every object at every server, all at the same time, by so many readers a server.

    Args:
        servers: where.
        expected: digests by address.
        each: readers at each server.
        copies: how many of them read an object; 0: all.
    """
    load = Load()
    uris = list(expected)

    def run(server: Server, number: int) -> None:
        reader = _Reader(server, expected, load)
        with hotshard.connect(server.address, **OPTIONS) as cache:
            for index, uri in enumerate(uris):
                if (index + number) % each < (copies or each):
                    reader.read(cache, uri)

    threads = [
        threading.Thread(target=run, args=(server, number))
        for server in servers
        for number in range(each)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load
