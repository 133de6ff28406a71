"""A cluster of real server processes, each on a host of its own (network.py), over one S3 server.

They find each other as they would anywhere: by a list of addresses (`cluster.provider: static`), so what
happens when one dies, leaves or joins is what happens in earnest.
"""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from benchmarks.fleet.network import Host, Network
from benchmarks.results import BenchError
from hotshard.cli.cache_process import CacheProcess
from hotshard.cli.s3_server import SeaweedS3

ORIGIN_BYTES = "hotshard_origin_received_bytes_total"
PEER_BYTES = "hotshard_peer_received_bytes_total"
START_S = 60.0
SLOTS = 8192
_POLL_S = 0.02
_ROOT = Path(__file__).parent.parent.parent
_numbers = itertools.count(1)
Settings = Mapping[str, Any]


class Server(CacheProcess):
    """A cache server on a host."""

    def __init__(self, directory: Path, host: Host, settings: Settings, s3: SeaweedS3) -> None:
        self.host = host
        self.name = f"n{host.number}"
        defaults = {
            "free_space_floor": "64MiB",
            "shutdown_grace_s": 5,
            "grpc": {"listen": f"{host.address}:7070"},
            "bulk": {"listen": f"{host.address}:7071"},
            "admin": {"listen": f"{host.address}:7072"},
        }
        super().__init__(
            str(directory),
            _merged(defaults, settings),
            environment={
                **s3.environment,
                "AWS_EC2_METADATA_DISABLED": "true",
                "PYTHONPATH": os.pathsep.join((str(_ROOT / "client"), str(_ROOT))),
            },
            program=host.program("cache_server"),
        )
        self.grpc = f"{host.address}:7070"
        self.admin = f"{host.address}:7072"

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self.exit_code is None

    def total(self, name: str, **labels: str) -> int:
        """A counter, summed over the labels that are not given."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return int(
            sum(
                value
                for key, value in self.counters().items()
                if key.partition("{")[0] == name and all(each in key for each in wanted)
            )
        )

    def cluster(self) -> dict[str, Any]:
        """Its membership, from its status."""
        found: dict[str, Any] = json.loads(self.get("/status")[1])["cluster"]
        return found


class Fleet:
    """Servers that know each other: `servers` run from the beginning, `spares` are listed only."""

    def __init__(
        self,
        directory: Path,
        network: Network,
        s3: SeaweedS3,
        documents: Sequence[Settings],
        count: int,
    ) -> None:
        self.network = network
        self.s3 = s3
        self.boto = _client(s3)
        self.bucket = f"fleet-{next(_numbers)}"
        self.boto.create_bucket(Bucket=self.bucket)
        origin = {"prefix": f"s3://{self.bucket}/", "endpoint_url": s3.endpoint_url}
        made = [
            Server(directory / f"n{host.number}", host, {"origins": [origin], **document}, s3)
            for host, document in zip(network.hosts, documents, strict=True)
        ]
        self.servers, self.spares = made[:count], made[count:]

    def uri(self, key: str) -> str:
        """The address of an object."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, body: bytes) -> None:
        """Put an object to the origin."""
        self.boto.put_object(Bucket=self.bucket, Key=key, Body=body)

    def start(self, servers: Sequence[Server]) -> None:
        """Start these side by side, from this thread: the kernel ends them with the one that did."""
        for server in servers:
            server.launch()
        deadline = time.monotonic() + START_S
        for server in servers:
            while not server.ready():
                if server.exit_code is not None or time.monotonic() > deadline:
                    raise BenchError(f"{server.name} did not start:\n{server.log_tail()}")
                time.sleep(_POLL_S)

    def join(self, count: int) -> list[Server]:
        """Start so many spares, and wait until all agree that they are in."""
        joining, self.spares = self.spares[:count], self.spares[count:]
        self.start(joining)
        self.servers += joining
        self.agree()
        return joining

    def agree(
        self, servers: Sequence[Server] = (), *, limit_s: float = START_S, **states: int
    ) -> None:
        """Wait until these servers (all that run) see the same members in these states (all ready).

        Raises:
            BenchError: they do not in time.
        """
        asked = servers or [server for server in self.servers if server.running]
        wanted = states or {"ready": len(asked)}
        seen: list[dict[str, Any]] = []

        def same() -> bool:
            seen[:] = [server.cluster() for server in asked]
            versions = {(each["me"].get("zone", ""), each["view_version"]) for each in seen}
            zones = {zone for zone, _ in versions}  # each has a table of its own
            return len(versions) == len(zones) and all(each["members"] == wanted for each in seen)

        eventually(same, limit_s, lambda: f"not everybody sees {wanted}: {seen}")

    def stop(self) -> None:
        """Kill all that run: nothing of them is needed any more, and a slow goodbye costs time."""
        for server in self.servers:
            if server.running:
                server.kill()

    def total(self, name: str, **labels: str) -> int:
        """A counter of all servers that run, since each of them was started last."""
        return sum(server.total(name, **labels) for server in self.servers if server.running)

    def origin_bytes(self, servers: Sequence[Server] = ()) -> int:
        """What the S3 server has sent to these (all that run) since each of them was started last."""
        return sum(s.total(ORIGIN_BYTES) for s in servers) if servers else self.total(ORIGIN_BYTES)


def eventually(
    happens: Callable[[], bool], limit_s: float = START_S, problem: Callable[[], str] | None = None
) -> None:
    """Wait until something is so.

    Raises:
        BenchError: it is not in time.
    """
    deadline = time.monotonic() + limit_s
    while not happens():
        if time.monotonic() > deadline:
            raise BenchError(problem() if problem else f"it did not happen in {limit_s:g} s")
        time.sleep(_POLL_S)


@contextlib.contextmanager
def open_fleet(
    directory: Path,
    count: int,
    *,
    spares: int = 0,
    listed: Sequence[str] = (),
    each: Mapping[int, Settings] | None = None,
    **settings: Any,
) -> Iterator[Fleet]:
    """Servers that have found each other, over an S3 server of their own. Needs root.

    Args:
        directory: for all their files.
        count: how many run.
        spares: how many more are in everybody's list of addresses, to be started later.
        listed: addresses in that list that are no servers of the fleet.
        each: configuration of single servers, by number.
        settings: configuration of all of them.

    Raises:
        BenchError: they do not come up.
    """
    with Network(count + spares) as network, SeaweedS3(host=network.address) as s3:
        addresses = [f"{host.address}:7070" for host in network.hosts]
        cluster = {
            "provider": "static",
            "name": "fleet",
            "slots": SLOTS,
            "members": [*addresses, *listed],
        }
        everybody = _merged({"cluster": cluster}, settings)
        documents = [
            _merged(everybody, (each or {}).get(number, {})) for number in range(count + spares)
        ]
        fleet = Fleet(directory, network, s3, documents, count)
        try:
            fleet.start(fleet.servers)
            yield fleet
        finally:
            fleet.stop()


def _client(s3: SeaweedS3) -> Any:
    """To put things into the S3 server, and to look at them."""
    return boto3.client(
        "s3",
        endpoint_url=s3.endpoint_url,
        aws_access_key_id=s3.access_key,
        aws_secret_access_key=s3.secret_key,
        region_name=s3.region,
        config=Config(s3={"addressing_style": "path"}),
    )


def _merged(below: Settings, above: Settings) -> dict[str, Any]:
    """One configuration over another."""
    found = dict(below)
    for key, value in above.items():
        inner = found.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            found[key] = _merged(inner, value)
        else:
            found[key] = value
    return found
