"""`hotshard demo`: the main job on one machine, with a real S3 server.

Uploads a seeded dataset, starts a cache server over it, lets 2 processes read two shuffled epochs through
the client, then the same epoch straight from S3, and shows the figures side by side. Every byte that was
read is compared with what was uploaded. It leaves nothing behind, however it ends: one ExitStack holds
everything that was started, and SIGTERM and SIGHUP unwind it like Ctrl-C does.
"""

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from hotshard.cli import exits, output
from hotshard.cli.exits import Failure

if TYPE_CHECKING:
    from hotshard.cli.cache_process import CacheProcess
    from hotshard.cli.demo_data import Bucket, Sample

READERS = 2
GETS = "hotshard_origin_requests_total{"
RECEIVED_BYTES = "hotshard_origin_received_bytes_total{"
DISK_BYTES = 2 << 30  # the dataset at the origin, in the cache, and some air


@dataclass(frozen=True, slots=True)
class Pass:
    """One row of the table."""

    name: str
    seconds: float
    objects: int
    bytes: int
    origin_gets: int
    origin_bytes: int
    wrong: tuple[str, ...]

    @property
    def hit_ratio(self) -> float:
        """The share of the bytes read that did not come from the origin."""
        return max(0.0, 1.0 - self.origin_bytes / self.bytes) if self.bytes else 0.0


@click.command()
@click.option("--keep", is_flag=True, help="Stay up afterwards, and say how to use it.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--small", is_flag=True, help="A dataset of 20 MiB instead of 500 MiB.")
def demo(keep: bool, as_json: bool, small: bool) -> int:
    """Show the main job with a real S3 server.

    A cache over it, two shuffled epochs, and the same without the cache. Needs nothing but this
    machine: about a minute, and 2 GiB of disk below $TMPDIR.
    """
    for package in ("cache_server", "obstore"):
        if importlib.util.find_spec(package) is None:
            raise Failure(f"{package} is not installed", "pip install 'hotshard[demo]'")
    _use_loopback_only()
    say = output.note if as_json else output.print_line
    with _unwinding_on_signals(), ExitStack() as stack:
        scene = set_up(stack, say, small=small)
        passes = play(stack, scene, say)
        _report(scene, passes, as_json=as_json)
        if keep:
            say(_how_to_use(scene))
            sys.stdout.flush()
            signal.pause()
    return exits.FAILED if any(each.wrong for each in passes) else exits.OK


@dataclass(frozen=True, slots=True)
class Scene:
    """What stands when the reading begins."""

    bucket: "Bucket"
    node: "CacheProcess"
    samples: "list[Sample]"

    @property
    def total_bytes(self) -> int:
        """Of the dataset."""
        return sum(sample.size for sample in self.samples)


def _use_loopback_only() -> None:
    """Everything here is on loopback: no AWS profile, credentials or proxy is of use, some would harm."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.upper() in {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}:
            del os.environ[name]


def set_up(stack: ExitStack, say: Callable[[str], None], *, small: bool) -> Scene:
    """Start S3, upload the dataset, start the cache server; the stack stops and removes everything."""
    from hotshard.cli.demo_data import Bucket, create, samples, upload
    from hotshard.cli.s3_server import S3ServerError, SeaweedS3

    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="hotshard-demo-"))
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < DISK_BYTES and not small:
        what = f"{tempfile.gettempdir()} has {output.size(free_bytes)} free of the 2 GiB needed"
        raise Failure(what, "point TMPDIR at a larger disk")
    with _step(say, "S3 server (SeaweedFS)"):
        try:
            s3 = stack.enter_context(SeaweedS3())
        except S3ServerError as error:
            raise Failure(str(error)) from error
    bucket = Bucket(s3.endpoint_url, s3.region, s3.access_key, s3.secret_key)
    plan = samples(4, 4 << 20, 40) if small else samples()
    total = output.size(sum(sample.size for sample in plan))
    with (
        _step(say, f"upload of {len(plan):,} objects, {total}"),
        output.progress_bar(transient=True) as bar,
    ):
        task = bar.add_task("upload", total=sum(sample.size for sample in plan), note="")
        create(bucket)
        plan = upload(bucket, plan, lambda count: bar.advance(task, count))
    with _step(say, "cache server"):
        node = _cache_server(stack, directory, bucket)
    return Scene(bucket, node, plan)


def _cache_server(stack: ExitStack, directory: str, bucket: "Bucket") -> "CacheProcess":
    from hotshard.cli.cache_process import CacheProcess, CacheProcessError
    from hotshard.cli.demo_data import BUCKET

    origin = {
        "prefix": f"s3://{BUCKET}/",
        "endpoint_url": bucket.endpoint_url,
        "region": bucket.region,
        "addressing": "path",
    }
    environment = {
        "AWS_ACCESS_KEY_ID": bucket.access_key,
        "AWS_SECRET_ACCESS_KEY": bucket.secret_key,
    }
    document = {"origins": [origin], "free_space_floor": "256MiB", "log": {"level": "warning"}}
    node = CacheProcess(os.path.join(directory, "node"), document, environment=environment)
    stack.callback(node.stop)
    try:
        node.start()
    except CacheProcessError as error:
        raise Failure(str(error)) from error
    return node


def play(stack: ExitStack, scene: Scene, say: Callable[[str], None]) -> list[Pass]:
    """Two epochs through the cache, one straight from S3."""
    from hotshard.cli.demo_readers import Readers

    with _step(say, f"{READERS} reader processes"):
        readers = Readers(stack, READERS, scene.node.address, scene.bucket, scene.samples)
    passes = []
    for name, epoch, through in (
        ("epoch 1 (cold cache)", 1, "cache"),
        ("epoch 2 (hot cache)", 2, "cache"),
        ("direct from S3", 2, "s3"),
    ):
        with _step(say, name):
            gets_before, bytes_before = origin_use(scene.node)
            seconds, answers = readers.epoch(epoch, through)
            gets, origin_bytes = origin_use(scene.node)
        read_bytes = sum(answer["bytes"] for answer in answers)
        own_gets = sum(answer["requests"] for answer in answers)  # none of them through the cache
        passes.append(
            Pass(
                name,
                seconds,
                sum(answer["objects"] for answer in answers),
                read_bytes,
                own_gets or gets - gets_before,
                read_bytes if own_gets else origin_bytes - bytes_before,
                tuple(uri for answer in answers for uri in answer["wrong"]),
            )
        )
    return passes


def origin_use(node: "CacheProcess") -> tuple[int, int]:
    """GETs that the server has sent to the origin, and bytes that came back, since its start."""
    counters = node.counters()
    gets = (v for k, v in counters.items() if k.startswith(GETS) and 'verb="GET"' in k)
    received = (v for k, v in counters.items() if k.startswith(RECEIVED_BYTES))
    return int(sum(gets)), int(sum(received))


def _report(scene: Scene, passes: list[Pass], *, as_json: bool) -> None:
    if as_json:
        document = [{**asdict(each), "hit_ratio": round(each.hit_ratio, 4)} for each in passes]
        output.print_json({"bytes": scene.total_bytes, "passes": document})
        return
    output.print_line("")
    output.print_table(
        ("", "seconds", "MB/s", "objects/s", "origin GETs", "origin MB", "hit ratio"),
        [
            (
                each.name,
                f"{each.seconds:.2f}",
                f"{each.bytes / each.seconds / 1e6:,.0f}",
                f"{each.objects / each.seconds:,.0f}",
                f"{each.origin_gets:,}",
                f"{each.origin_bytes / 1e6:,.1f}",
                f"{each.hit_ratio:.1%}",
            )
            for each in passes
        ],
        right=("seconds", "MB/s", "objects/s", "origin GETs", "origin MB", "hit ratio"),
    )
    wrong = [uri for each in passes for uri in each.wrong]
    objects = sum(each.objects for each in passes)
    output.print_line(
        f"checksums: WRONG BYTES in {len(wrong)} or more of {objects:,} objects: {wrong[0]}, ..."
        if wrong
        else f"checksums: all {objects:,} objects read are equal to what was uploaded"
    )
    output.print_line(
        "The S3 server is on this machine and shares its processors; real S3 is farther away."
    )


def _how_to_use(scene: Scene) -> str:
    node, bin_directory = scene.node, os.path.dirname(sys.executable)
    shard = scene.samples[0].uri
    prefix = shard.rpartition("/")[0] + "/"
    return f"""
The servers stay up until Ctrl-C. In another terminal:

  export HOTSHARD_ADDRESS={node.address}
  export PATH={bin_directory}:$PATH
  hotshard ls -l {prefix}
  hotshard stat {shard}
  hotshard cat --length 64 {shard} | xxd
  hotshard status
  hotshard --grpc-address {node.grpc} explain {shard}
  curl -s http://{node.admin}/metrics | grep ^hotshard

  python - <<'EOF'
  import hotshard
  with hotshard.connect() as cache:
      print(cache.stat("{shard}"))
      print(len(cache.read("{shard}", offset=4096, length=1 << 20)))
  EOF"""


@contextmanager
def _step(say: Callable[[str], None], name: str) -> Iterator[None]:
    """Say what was done, and how long it took."""
    begun = time.monotonic()
    yield
    say(f"  {name:44} {time.monotonic() - begun:6.1f} s")
    sys.stdout.flush()  # whoever watches through a pipe wants to see it go on


@contextmanager
def _unwinding_on_signals() -> Iterator[None]:
    """Any request to end unwinds like Ctrl-C; further ones do not disturb the cleaning up."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def unwind(*_: Any) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, unwind) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
