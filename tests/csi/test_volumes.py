"""What pods see of their volumes, and how volumes share what is mounted once."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

import hotshard
from hotshard.csi import figures
from hotshard.csi.keeper_line import KeeperLine
from hotshard.v1 import csi_pb2
from support.kubernetes_node import KubernetesNode
from support.waiting import until

MANY = csi_pb2.VolumeCapability.AccessMode.MULTI_NODE_READER_ONLY

# A container: a mount namespace in which a volume is bound to another path. It answers what it can read.
CONTAINER = """
set -e
mount --bind "$1" "$2"
mount --make-$3 "$2"
exec "$4" -c '
import os, sys
print("up", flush=True)
for line in sys.stdin:
    try:
        print(sorted(os.listdir(sys.argv[1])), flush=True)
    except OSError as error:
        print(os.strerror(error.errno), flush=True)
' "$2"
"""


class Container:
    """One, as the container runtime makes it; `propagation` is `rprivate` (None) or `rslave`."""

    def __init__(self, node: KubernetesNode, target: str, name: str, propagation: str) -> None:
        inside = node.root / name
        inside.mkdir()
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", CONTAINER, "sh",
                   target, str(inside), propagation, sys.executable]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._hear() == "up"

    def sees(self) -> str:
        """What listing the volume gives."""
        assert self._process.stdin is not None
        print("?", file=self._process.stdin, flush=True)
        return self._hear()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        self._process.communicate()


def test_fifty_volumes_of_one_prefix_are_one_file_system(shared_node, data):
    attributes = {"origin": data.origin}
    readers = shared_node.log().count(" started\n")
    targets = {f"v{i}": shared_node.target(f"pod-{i}") for i in range(50)}

    def publish(name: str) -> None:
        shared_node.publish(name, targets[name], attributes=attributes)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(publish, targets))
    assert len({os.stat(target).st_dev for target in targets.values()}) == 1
    assert len(shared_node.mounts()) == 51
    keeper = KeeperLine(shared_node.options.keeper_socket)
    keeper.connect()
    assert len(keeper.names()) == 1
    assert shared_node.log().count(" started\n") == readers + 1
    names = list(targets)
    for name in names[:-1]:
        shared_node.unpublish(name, targets[name])
    last = targets[names[-1]]
    assert sorted(os.listdir(last)) == sorted(data.bodies)
    shared_node.unpublish(names[-1], last)
    assert shared_node.mounts() == []
    assert keeper.names() == []
    keeper.close()


def test_other_options_are_another_file_system(shared_node, data):
    targets = [shared_node.target(name) for name in ("x", "y")]
    for target, ttl_s in zip(targets, ("5", "6"), strict=True):
        shared_node.publish(target, target, attributes={"origin": data.origin, "ttl_s": ttl_s})
    assert os.stat(targets[0]).st_dev != os.stat(targets[1]).st_dev
    for target in targets:
        shared_node.unpublish(target, target)


def test_a_prefix_below_the_origin(shared_node, data):
    target = shared_node.target("p")
    bucket = data.origin.removesuffix("/train")
    shared_node.publish("v", target, attributes={"origin": bucket, "prefix": "train"})
    assert sorted(os.listdir(target)) == sorted(data.bodies)
    shared_node.unpublish("v", target)


def test_the_socket_of_the_cache_server_as_a_volume(shared_node, data):
    """SEMANTICS 12: a volume with `mode: socket` lets the Python client read, and nothing be changed."""
    target = shared_node.target("p", "cache")
    for _ in range(2):
        shared_node.publish("s", target, attributes={"mode": "socket"})
    with hotshard.connect(f"unix://{target}/local.sock") as cache:
        assert cache.read(f"{data.origin}/f3") == data.bodies["f3"]
    for change in (lambda: os.mkdir(f"{target}/new"), lambda: os.unlink(f"{target}/local.sock")):
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == errno.EROFS
    reply = shared_node.stats("s", target)
    assert not reply.volume_condition.abnormal
    shared_node.unpublish("s", target)
    assert not os.path.exists(target)
    assert os.path.exists(data.socket)


def test_the_socket_volume_follows_a_cache_server_that_is_restarted(shared_node, data):
    target = shared_node.target("p", "cache")
    shared_node.publish("s", target, attributes={"mode": "socket"})
    data.server.stop()
    data.server.start()
    with hotshard.connect(f"unix://{target}/local.sock") as cache:
        assert cache.read(f"{data.origin}/f3") == data.bodies["f3"]
    shared_node.unpublish("s", target)


def test_a_cache_server_that_is_away_is_said_so_and_published_later(shared_node, data):
    target = shared_node.target("p")
    data.server.stop()
    try:
        with pytest.raises(Exception, match="UNAVAILABLE"):
            shared_node.publish("v", target, attributes={"origin": data.origin})
        assert not os.path.exists(target)
    finally:
        data.server.start()
    shared_node.publish("v", target, attributes={"origin": data.origin})
    assert sorted(os.listdir(target)) == sorted(data.bodies)
    shared_node.unpublish("v", target)


def test_mounts_propagate_from_the_drivers_pod_to_the_node_and_into_containers(node, data):
    """The driver mounts in a mount namespace of its own; so does the container of each pod."""
    node.keeper()
    driver = node.driver()
    attributes = {"origin": data.origin, "mode": "cached"}
    targets = {name: node.target(name) for name in ("a", "b")}
    for name, target in targets.items():
        node.publish(name, target, attributes=attributes)
    everything = str(sorted(data.bodies))
    following = Container(node, targets["a"], "following", "rslave")
    private = Container(node, targets["b"], "private", "rprivate")
    assert following.sees() == private.sees() == everything
    driver.kill()
    driver = node.driver()
    assert following.sees() == private.sees() == everything

    node.abort(targets["a"])
    assert following.sees() == os.strerror(errno.ENOTCONN)
    until(lambda: node.stats("a", targets["a"]).volume_condition.abnormal, "the driver to notice")
    for name, target in targets.items():
        node.publish(name, target, attributes=attributes)
        assert sorted(os.listdir(target)) == sorted(data.bodies)
    assert following.sees() == everything  # mountPropagation: HostToContainer
    assert private.sees() == os.strerror(errno.ENOTCONN)  # without it the pod has to be made anew
    assert len(node.mounts()) == 5  # the new one, and over the dead ones at two targets

    following.close()
    private.close()
    for name, target in targets.items():
        node.unpublish(name, target)
    assert node.mounts() == []


def test_a_container_that_still_runs_reads_on_after_unpublish(node, data):
    """Kubelet unpublishes after the containers ended; one that it lost track of must not hang."""
    node.keeper()
    driver = node.driver()
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin, "mode": "cached"})
    container = Container(node, target, "lost", "rprivate")
    node.unpublish("v", target)
    assert node.mounts() == []
    everything = str(sorted(data.bodies))
    assert container.sees() == everything
    driver.kill()
    node.driver()
    assert container.sees() == everything
    node.publish("w", target, attributes={"origin": data.origin, "mode": "cached"})
    assert container.sees() == everything
    node.unpublish("w", target)
    container.close()
    keeper = KeeperLine(node.options.keeper_socket)
    keeper.connect()
    until(lambda: keeper.names() == [], "the last user to be gone")
    keeper.close()


def test_health_and_metrics(node, data):
    node.keeper()
    node.driver()
    page = node.page
    assert page("/healthz") == page("/readyz") == "ok"
    assert page("/other") == ""
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin})
    node.register()
    until(lambda: "hotshard_csi_mounts_silent 0" in page("/metrics"), "the reader")
    with open(f"{target}/f3", "rb") as file:
        assert file.read() == data.bodies["f3"]
    samples = page("/metrics").splitlines()
    until(lambda: "hotshard_mount_opens_total{mode=" in page("/metrics"), "metrics of the mount")
    for sample in (
        'hotshard_csi_volumes{kind="mount"} 1',
        'hotshard_csi_volumes{kind="socket"} 0',
        "hotshard_csi_mounts 1",
        "hotshard_csi_keeper_connected 1",
        "hotshard_csi_registered 1",
        'hotshard_csi_calls_total{method="NodePublishVolume",code="OK"} 1',
    ):
        assert sample in samples
    names = {line.split(" ")[2] for line in samples if line.startswith("# TYPE hotshard_csi_")}
    assert names == set(figures.ABOUT)
