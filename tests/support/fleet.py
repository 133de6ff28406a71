"""A cluster of real server processes, each on a host of its own (netns.py), over one S3 server."""

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hotshard.cli.cache_process import CacheProcess
from hotshard.cli.s3_server import SeaweedS3
from support import s3 as support_s3
from support.netns import Host, Network

ORIGIN_BYTES = "hotshard_origin_received_bytes_total"
PEER_BYTES = "hotshard_peer_received_bytes_total"
START_S = 60.0
TESTS = Path(__file__).parent.parent


class Server(CacheProcess):
    """A cache server on a host."""

    def __init__(
        self, directory: Path, host: Host, members: Path, settings: dict[str, Any]
    ) -> None:
        self.host = host
        self.id = f"n{host.number}"
        roots = (TESTS.parent / "client", TESTS.parent, TESTS)
        super().__init__(
            str(directory),
            {
                "free_space_floor": "64MiB",
                "shutdown_grace_s": 5,
                **settings,
                "grpc": {"listen": f"{host.address}:7070"},
                "bulk": {"listen": f"{host.address}:7071"},
                "admin": {"listen": f"{host.address}:7072"},
            },
            environment={
                "MEMBERS_FILE": str(members),
                "MEMBER_ID": self.id,
                "PYTHONPATH": os.pathsep.join(map(str, roots)),
            },
            program=host.program("support.static_node"),
        )
        self.admin = f"{host.address}:7072"

    @property
    def peer(self) -> dict[str, str]:
        address = self.host.address
        return {"id": self.id, "grpc": f"{address}:7070", "bulk": f"{address}:7071", "zone": "z"}

    def total(self, name: str) -> int:
        """A counter, summed over its labels."""
        return int(sum(v for k, v in self.counters().items() if k.startswith(name)))


class Fleet:
    """Servers that come, go and know each other."""

    def __init__(
        self, directory: Path, network: Network, s3: SeaweedS3, bucket: str, **settings: Any
    ) -> None:
        self.network = network
        self.s3 = s3
        self.bucket = bucket
        self.boto = support_s3.client(s3)
        self.servers: list[Server] = []
        self._directory = directory
        self._members = directory / "members.json"
        self._settings = settings
        self._version = 0
        self._owners: list[str] = []
        self._lost: dict[str, int] = {}

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def put(self, objects: Mapping[str, bytes]) -> None:
        for key, body in objects.items():
            self.boto.put_object(Bucket=self.bucket, Key=key, Body=body)

    def grow(self, count: int) -> list[Server]:
        """Make servers, one to a host, and start them; they own nothing yet."""
        added = []
        for _ in range(count):
            number = len(self.servers)
            hosts = self.network.hosts
            host = hosts[number] if number < len(hosts) else self.network.add()
            origin = {"prefix": f"s3://{self.bucket}/", "endpoint_url": self.s3.endpoint_url}
            settings = {"origins": [origin], **self._settings}
            server = Server(self._directory / f"n{number}", host, self._members, settings)
            self.servers.append(server)
            added.append(server)
        self.view(self._owners)
        start_all(added)
        return added

    def view(
        self,
        owners: Sequence[str] | None = None,
        lies: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Tell all who owns what from now on; None: all servers. `lies` are told of some members."""
        self._version += 1
        previous, self._owners = (
            self._owners,
            [s.id for s in self.servers] if owners is None else [*owners],
        )
        document = {
            "version": self._version,
            "members": [{**s.peer, **(lies or {}).get(s.id, {})} for s in self.servers],
            "owners": self._owners,
            "previous": previous,
        }
        fresh = self._members.with_suffix(".new")
        fresh.write_text(json.dumps(document))
        os.replace(fresh, self._members)

    def stop(self) -> None:
        for server in self.servers:
            with contextlib.suppress(AssertionError):
                server.stop()

    def origin_bytes(self) -> int:
        """What the S3 server has sent to servers since each of them was started last."""
        return sum(server.total(ORIGIN_BYTES) for server in self.servers)

    def counters(self, name: str) -> dict[str, int]:
        return {server.id: server.total(name) for server in self.servers}


def start_all(servers: Sequence[Server]) -> None:
    """Start these side by side, from this thread: the kernel ends them with the one that started them."""
    for server in servers:
        server.launch()
    deadline = time.monotonic() + START_S
    for server in servers:
        while not server.ready():
            if server.exit_code is not None or time.monotonic() > deadline:
                raise AssertionError(f"{server.id} did not start:\n{server.log_tail()}")
            time.sleep(0.02)


@contextlib.contextmanager
def open_fleet(directory: Path, count: int, **settings: Any) -> Iterator[Fleet]:
    """Servers that know each other, over an S3 server of their own."""
    with Network(count) as network, SeaweedS3(host=network.address) as s3:
        boto = support_s3.client(s3)
        bucket = support_s3.new_bucket(boto)
        saved = {k: os.environ.get(k) for k in (*s3.environment, "AWS_EC2_METADATA_DISABLED")}
        os.environ.update({**s3.environment, "AWS_EC2_METADATA_DISABLED": "true"})
        fleet = Fleet(directory, network, s3, bucket, **settings)
        try:
            fleet.grow(count)
            fleet.view()
            yield fleet
        finally:
            fleet.stop()
            for key, value in saved.items():
                if value is None:
                    os.environ.pop(key, None)
                else:
                    os.environ[key] = value
