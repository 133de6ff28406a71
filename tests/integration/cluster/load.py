"""Readers that go on while things happen to the servers: what they saw, and when."""

import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import hotshard
from support.content import digest
from support.fleet import Server


@dataclass
class Load:
    """What the readers saw."""

    wrong: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    reads: list[tuple[float, float]] = field(default_factory=list)
    """When each began, and how long it took, seconds."""

    def good(self) -> None:
        """No read failed, and none gave a wrong byte."""
        assert (self.wrong, self.failed[:5]) == ([], [])
        assert self.reads

    def p99_s(self, since: float = 0.0, until: float = float("inf")) -> float:
        """The 99th percentile of reads that began in this time."""
        seconds = sorted(took for at, took in self.reads if since <= at < until)
        return seconds[int(0.99 * (len(seconds) - 1))] if seconds else 0.0

    def longest_s(self) -> float:
        return max(took for _, took in self.reads)


@contextmanager
def reading(
    servers: Sequence[Server],
    expected: Mapping[str, str],
    *,
    pause_s: float = 0.005,
    seed: int = 1,
) -> Iterator[Load]:
    """One reader at each of these servers, of random objects, until the end of the block.

    A server that is gone is waited for, as its clients do; that is no time of a read on another server.
    """
    load, ended = Load(), threading.Event()
    uris = sorted(expected)

    def reader(server: Server, number: int) -> None:
        dice = random.Random(seed * 1000 + number)
        with hotshard.connect(server.address, reconnect_s=30.0) as cache:
            while not ended.is_set():
                uri = dice.choice(uris)
                began = time.monotonic()
                try:
                    if digest(cache.read(uri)) != expected[uri]:
                        load.wrong.append(uri)
                except hotshard.HotshardError as error:
                    load.failed.append(f"{server.id}: {type(error).__name__}: {error}")
                load.reads.append((began, time.monotonic() - began))
                ended.wait(pause_s)

    threads = [
        threading.Thread(target=reader, args=(server, number), daemon=True)
        for number, server in enumerate(servers)
    ]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a read hangs"


def read_all(servers: Sequence[Server], expected: Mapping[str, str], *, each: int = 1) -> Load:
    """Every object, at every server, by so many readers each, all at the same time."""
    load = Load()

    def reader(server: Server) -> None:
        with hotshard.connect(server.address) as cache:
            for uri, want in expected.items():
                began = time.monotonic()
                try:
                    if digest(cache.read(uri)) != want:
                        load.wrong.append(uri)
                except hotshard.HotshardError as error:
                    load.failed.append(f"{server.id}: {type(error).__name__}: {error}")
                load.reads.append((began, time.monotonic() - began))

    threads = [
        threading.Thread(target=reader, args=(server,)) for server in servers for _ in range(each)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return load
