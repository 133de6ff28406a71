"""Clusters of real servers. HOTSHARD_TEST_SCALE=1 runs all of them in full size, 0.1 all in small size."""

import http.client
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from benchmarks.fleet import network
from benchmarks.fleet.fleet import Fleet, Server, open_fleet
from benchmarks.fleet.readers import digest
from support.content import content

SCALE = float(os.environ.get("HOTSHARD_TEST_SCALE", "0"))
FULL = SCALE >= 1
LONG = pytest.mark.skipif(
    not SCALE, reason="up to 20 s each: HOTSHARD_TEST_SCALE=0.1 runs it, =1 in full size"
)
MIB = 1 << 20
StartFleet = Callable[..., Fleet]


@pytest.fixture(scope="session")
def _hosts() -> None:
    reason = network.unavailable()
    if reason:
        pytest.skip(reason)


@pytest.fixture
def start_fleet(_hosts: None, tmp_path) -> Iterator[StartFleet]:
    """Starts a cluster: `start_fleet(8, **configuration)`."""
    with ExitStack() as stack:

        def start(count: int, **settings: Any) -> Fleet:
            fleet = stack.enter_context(open_fleet(tmp_path, count, **settings))
            fleet.agree()
            return fleet

        yield start


def fill_origin(
    fleet: Fleet, *, small: int, big: int = 0, big_bytes: int = 0, directory: str = ""
) -> dict[str, str]:
    """Objects of 1 MiB (100 KiB in small runs) and some big ones: address -> digest."""
    size = MIB if FULL else 100 << 10
    expected = {}
    for i in range(small + big):
        key = f"{directory}{i:05}"
        body = content((size if i < small else big_bytes) + i, seed=i % 11)
        fleet.put(key, body)
        expected[fleet.uri(key)] = digest(body)
    return expected


def total_bytes(fleet: Fleet) -> int:
    """Of all objects."""
    found = fleet.boto.get_paginator("list_objects_v2").paginate(Bucket=fleet.bucket)
    return sum(entry["Size"] for page in found for entry in page.get("Contents", []))


VERBS = ("GET", "HEAD", "LIST")


class OriginWatch:
    """Counts what servers ask of the origin, second by second, while other things happen."""

    EACH_S = 1.0

    def __init__(self, fleet: Fleet) -> None:
        self._servers = [*fleet.servers, *fleet.spares]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.seconds: list[Counter[str]] = []

    def __enter__(self) -> "OriginWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def peak(self) -> int:
        """The most requests of all servers in a second."""
        return max((sum(second.values()) for second in self.seconds), default=0)

    @property
    def descriptions(self) -> int:
        """How many of all requests were for descriptions."""
        return sum(second["HEAD"] for second in self.seconds)

    @property
    def reads(self) -> int:
        """How many of all requests were for bytes."""
        return sum(second["GET"] for second in self.seconds)

    def _run(self) -> None:
        before = {server.name: self._count(server) for server in self._servers}
        due = time.monotonic()
        while not self._ended.is_set():
            due += self.EACH_S
            self._ended.wait(max(0.0, due - time.monotonic()))
            now = {server.name: self._count(server) for server in self._servers}
            second: Counter[str] = Counter()
            for name, counts in now.items():
                # One that was started again counts from zero, and one that is gone counts no more.
                again = any(counts[verb] < before[name][verb] for verb in VERBS)
                second += counts if again else counts - before[name]
            self.seconds.append(second)
            before = now

    @staticmethod
    def _count(server: Server) -> Counter[str]:
        try:
            counters = server.counters().items()
        except (OSError, http.client.HTTPException, ValueError):
            return Counter()
        named = [(k, v) for k, v in counters if k.startswith("hotshard_origin_requests_total{")]
        return Counter({v: int(sum(n for k, n in named if f'verb="{v}"' in k)) for v in VERBS})


def failed_requests(fleet: Fleet) -> dict[str, dict[str, int]]:
    """By server and outcome: what was asked of members and did not come from them."""
    name = "hotshard_peer_requests_total"
    outcomes = ("unreachable", "broken", "open", "overloaded", "origin_unavailable", "mismatch")
    found = {}
    for server in fleet.servers:
        counts = {outcome: server.total(name, outcome=outcome) for outcome in outcomes}
        found[server.name] = {outcome: count for outcome, count in counts.items() if count}
    return {server: counts for server, counts in found.items() if counts}
