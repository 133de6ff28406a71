"""What the demo runs: an S3 server with the dataset, a cache server over it, and reader processes."""

import http.client
import json
import os
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hotshard.cli.child import Child
from hotshard.cli.demo_data import BUCKET, Bucket, Sample
from hotshard.cli.exits import Failure

if TYPE_CHECKING:
    import hotshard

START_TIMEOUT_S = 30.0
POLL_S = 0.05
ORIGIN_GETS = "hotshard_origin_requests_total"
ORIGIN_BYTES = "hotshard_origin_bytes_total"
LOG_LINES = 20


class CacheNode:
    """A cache server over the demo's bucket, with its files in `directory`."""

    def __init__(self, directory: str, bucket: Bucket) -> None:
        self.socket = os.path.join(directory, "local.sock")
        self.grpc, self.admin = (f"127.0.0.1:{port}" for port in _free_ports(2))
        self.cache_dir = os.path.join(directory, "cache")
        self._log = os.path.join(directory, "server.log")
        self._config = os.path.join(directory, "hotshard.yaml")
        os.mkdir(self.cache_dir)
        with open(self._config, "w", encoding="utf-8") as file:
            json.dump(self._document(bucket), file, indent=2)  # JSON is YAML
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HOTSHARD_", "AWS_"))}
        self._environment = {
            **inherited,
            "AWS_ACCESS_KEY_ID": bucket.access_key,
            "AWS_SECRET_ACCESS_KEY": bucket.secret_key,
        }

    @property
    def address(self) -> str:
        """What clients are told."""
        return f"unix://{self.socket}"

    def start(self, stack: ExitStack) -> None:
        """Start it; the stack stops it. Returns when it is ready."""
        with open(self._log, "wb") as log:
            server = Child(
                ["-m", "cache_server", "--config", self._config],
                environment=self._environment,
                stderr=log,
            )
        stack.callback(server.stop)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready():
            if server.exit_code is not None or time.monotonic() > deadline:
                raise Failure(f"the cache server did not start:\n{self._log_tail()}")
            time.sleep(POLL_S)

    def origin_use(self, cache: "hotshard.Client") -> tuple[int, int]:
        """GETs that the server has sent to the origin, and bytes that came back, since its start."""
        counters = cache.status().counters
        gets, read = (
            sum(value for name, value in counters.items() if name.partition("{")[0] == counter)
            for counter in (ORIGIN_GETS, ORIGIN_BYTES)
        )
        return int(gets), int(read)

    def _document(self, bucket: Bucket) -> dict[str, Any]:
        return {
            "origins": [
                {
                    "prefix": f"s3://{BUCKET}/",
                    "endpoint_url": bucket.endpoint_url,
                    "region": bucket.region,
                    "addressing": "path",
                }
            ],
            "cache_dirs": [{"path": self.cache_dir, "capacity_bytes": "2GiB"}],
            "free_space_floor": "256MiB",
            "grpc": {"listen": self.grpc},
            "admin": {"listen": self.admin},
            "local_socket": {"path": self.socket, "mode": "0600"},
            "log": {"level": "warning"},
        }

    def _ready(self) -> bool:
        connection = http.client.HTTPConnection(self.admin, timeout=2.0)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _log_tail(self) -> str:
        with open(self._log, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-LOG_LINES:])


class Readers:
    """The reader processes; all of them read an epoch together."""

    def __init__(
        self, stack: ExitStack, count: int, node: CacheNode, bucket: Bucket, plan: Sequence[Sample]
    ) -> None:
        self._children: list[Child] = []
        setup = {
            "address": node.address,
            "bucket": bucket.document(),
            "readers": count,
            "samples": [asdict(sample) for sample in plan],
        }
        for index in range(count):
            child = Child(["-m", "hotshard.cli.demo_reader"], talks=True)
            stack.callback(child.stop)
            child.say(json.dumps({**setup, "index": index}))
            self._children.append(child)
        for child in self._children:
            self._answer(child)

    def epoch(self, epoch: int, through: str) -> tuple[float, list[dict[str, Any]]]:
        """Seconds until the last reader was done, and what each says."""
        begun = time.monotonic()
        for child in self._children:
            child.say(json.dumps({"epoch": epoch, "through": through}))
        answers = [self._answer(child) for child in self._children]
        return time.monotonic() - begun, answers

    @staticmethod
    def _answer(child: Child) -> dict[str, Any]:
        line = child.hear()
        if not line:
            raise Failure("a reader process ended early", "see its messages above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
