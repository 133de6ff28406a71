"""A real server process over a real S3 server."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from hotshard.cli.cache_process import CacheProcess

StartNode = Callable[..., CacheProcess]


@pytest.fixture
def start_node(tmp_path, s3) -> Iterator[StartNode]:
    """Starts servers: `start_node(origins=[...], **more configuration)`; all end with the test."""
    with ExitStack() as stack:
        count = iter(range(100))

        def start(*, started: bool = True, **document: Any) -> CacheProcess:
            settings = {"free_space_floor": "64MiB", **document}
            node = CacheProcess(str(tmp_path / f"n{next(count)}"), settings)
            stack.callback(node.stop)
            if started:
                node.start()
            return node

        yield start


@pytest.fixture
def node(start_node: StartNode, bucket) -> CacheProcess:
    """A server over an empty bucket."""
    return start_node(origins=[{"prefix": f"s3://{bucket[1]}/"}])


def origin_bytes(node: CacheProcess) -> int:
    """Payload received from the origins since the start."""
    counters = node.counters()
    return int(
        sum(v for k, v in counters.items() if k.startswith("hotshard_origin_received_bytes_total"))
    )


def origin_requests(node: CacheProcess, verb: str) -> int:
    """How many requests of a kind the origins were asked since the start."""
    counters = node.counters().items()
    name = "hotshard_origin_requests_total"
    return int(sum(v for k, v in counters if k.startswith(name) and f'verb="{verb}"' in k))


def sealed_shards(node: CacheProcess) -> int:
    """How many sealed shards its disks hold."""
    return sum(int(disk["sealed_shards"]) for disk in json.loads(node.get("/status")[1])["disks"])
