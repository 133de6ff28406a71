"""A node with a cache server over a real S3 bucket; everything a test starts or mounts ends with it."""

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import pytest

from hotshard.cli.cache_process import CacheProcess
from support import s3 as support_s3
from support.kubernetes_node import KubernetesNode
from support.mounts import FULL

SIZES = (0, 1, 5_000, 100_000, (1 << 20) + 1, 3_000_000)


@cache
def _unavailable() -> str:
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        return "needs /dev/fuse and root"
    if shutil.which("unshare") is None:
        return "needs unshare (util-linux)"
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True, check=False
    )
    return "" if tried.returncode == 0 else "mount and process namespaces do not work here"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with a reason, where nothing can be mounted."""
    ours = [item for item in items if "tests/csi" in str(item.path)]
    if ours and (reason := _unavailable()):
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))
    if FULL:
        for item in ours:
            item.add_marker(pytest.mark.timeout(600))


@dataclass
class Data:
    """What the origin has, and the server that serves it."""

    server: CacheProcess
    socket: str
    origin: str
    bodies: dict[str, bytes]


@pytest.fixture(scope="session")
def data(s3) -> Iterator[Data]:
    """A bucket with some objects under train/, and a cache server over it."""
    boto = support_s3.client(s3)
    bucket = support_s3.new_bucket(boto)
    rnd = random.Random(7)
    bodies = {f"f{i}": rnd.randbytes(size) for i, size in enumerate(SIZES)}
    for name, body in bodies.items():
        boto.put_object(Bucket=bucket, Key=f"train/{name}", Body=body)
    with tempfile.TemporaryDirectory(prefix="hsc") as directory:
        socket = f"{directory}/run/local.sock"
        os.mkdir(os.path.dirname(socket))
        settings = {
            "origins": [{"prefix": f"s3://{bucket}/"}],
            "free_space_floor": "64MiB",
            "local_socket": {"path": socket, "mode": "0666"},
        }
        with CacheProcess(f"{directory}/node", settings) as server:
            yield Data(server, socket, f"s3://{bucket}/train", bodies)


@pytest.fixture(scope="module")
def shared_node(data: Data) -> Iterator[KubernetesNode]:
    """A node with keeper and driver, for tests that leave it as they found it."""
    node = KubernetesNode(data.socket)
    try:
        node.keeper()
        node.driver()
        yield node
    finally:
        node.close()


@pytest.fixture
def node(data: Data) -> Iterator[KubernetesNode]:
    """A node without pods."""
    one = KubernetesNode(data.socket)
    yield one
    one.close()
