"""Driver and keeper die, are replaced, are upgraded, while programs read through volumes they published."""

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from hotshard.csi.keeper_line import KeeperLine
from hotshard.mount import device
from support.kubernetes_node import KubernetesNode
from support.mounts import FULL
from support.waiting import until

READER = """
import os, random, sys, time
ours, seed, want = sys.argv[1], int(sys.argv[2]), {}
rnd = random.Random(seed)
for name in sorted(os.listdir(sys.argv[3])):
    want[name] = open(f"{sys.argv[3]}/{name}", "rb").read()
names, rounds = sorted(want), 0
def timed(call, *given):
    started = time.monotonic()
    result = call(*given)
    took = time.monotonic() - started
    if took > 0.1:
        print(f"gap {took:.3f}", flush=True)
    return result
held = os.open(f"{ours}/f5", os.O_RDONLY)
print("reading", flush=True)
while not os.path.exists(sys.argv[4]):
    name = rnd.choice(names)
    file = timed(os.open, f"{ours}/{name}", os.O_RDONLY)
    got = b"".join(iter(lambda: timed(os.read, file, 400_000), b""))
    assert got == want[name], name
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    timed(os.close, file)
    at = rnd.randrange(len(want["f5"]) - 5000)
    os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
    assert timed(os.pread, held, 5000, at) == want["f5"][at : at + 5000], "the file held open"
    if rounds % 10 == 0:
        assert sorted(timed(os.listdir, ours)) == names
    rounds += 1
print("done", rounds, flush=True)
"""


ROUNDS = 10 if FULL else 2


class Readers:
    """Programs in pods that read and compare until they are told to stop."""

    def __init__(self, directory: Path, bodies: dict[str, bytes], targets: list[str]) -> None:
        copy = directory / "expected"
        copy.mkdir()
        for name, body in bodies.items():
            (copy / name).write_bytes(body)
        self._stop = directory / "stop"
        self._running = [
            subprocess.Popen(
                [sys.executable, "-c", READER, target, str(seed), str(copy), str(self._stop)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for seed, target in enumerate(targets)
        ]  # fmt: skip
        for each in self._running:
            assert each.stdout is not None
            assert each.stdout.readline() == "reading\n"

    def stop(self) -> list[float]:
        """End them; gives their calls of more than 0.1 s. Fails if a read failed or gave a wrong byte."""
        self._stop.touch()
        gaps, rounds = [], 0
        for each in self._running:
            output = each.communicate(timeout=60)[0]
            assert each.returncode == 0, output
            gaps += [float(x.split()[1]) for x in output.splitlines() if x.startswith("gap")]
            rounds += int(output.split()[-1])
        assert rounds > 0
        print(f"{rounds} rounds, longest pauses {sorted(gaps)[-6:]}")
        return gaps


def published(node: KubernetesNode, data) -> list[str]:
    """Pods with volumes of three kinds, two with the same; the paths of four readers."""
    kinds = {
        "cached": {"mode": "cached"},
        "cached-too": {"mode": "cached"},
        "passthrough": {"mode": "passthrough"},
        "older-kernel": {"mode": "cached", "resend": "no"},
    }
    for name, kind in kinds.items():
        options = {"origin": data.origin, "ttl_s": "1", **kind}
        node.publish(name, node.target(name), attributes=options)
    return [node.target(name) for name in kinds]


def settled(node: KubernetesNode, targets: list[str]) -> None:
    """Wait until the driver that runs now serves."""

    def in_order() -> bool:
        replies = [node.stats(t.split("/pods/")[1].split("/")[0], t) for t in targets]
        return not any(reply.volume_condition.abnormal for reply in replies)

    until(in_order, "all volumes to be in order")


@pytest.mark.slow
def test_kill_9_of_the_drivers_pod_again_and_again(node, data, tmp_path):
    """SEMANTICS 12: kill -9 of the driver's whole pod fails no read of a volume and changes no byte.

    Each driver is killed as soon as it is ready. What waited for it has been answered by then, so a read
    waits for two drivers at most: for the second if it came when the first had just become ready.
    """
    node.keeper()
    driver = node.driver()
    targets = published(node, data)
    mounts = node.mounts()
    readers = Readers(tmp_path, data.bodies, targets)
    away = []
    for _ in range(ROUNDS + 1):
        started = time.monotonic()
        driver.kill()
        driver = node.driver()
        settled(node, targets)
        away.append(time.monotonic() - started)
    gaps = readers.stop()
    print(f"drivers were away for {[f'{s:.2f}' for s in away]} s")
    assert max(gaps) < 2 * max(away) + 1
    assert node.mounts() == mounts
    for target in targets:
        name = target.split("/pods/")[1].split("/")[0]
        node.unpublish(name, target)
    assert node.mounts() == []


@pytest.mark.slow
def test_replacing_and_upgrading_the_drivers_pod(node, data, tmp_path):
    """SEMANTICS 12: an upgrade of the driver disturbs no read of a volume, with the new pod started before
    the old one ends or after.
    """
    node.keeper()
    driver = node.driver()
    targets = published(node, data)
    mounts = node.mounts()
    readers = Readers(tmp_path, data.bodies, targets)
    for _ in range(ROUNDS):  # maxSurge: 0
        driver.terminate()
        driver = node.driver()
        settled(node, targets)
    for _ in range(ROUNDS):  # maxSurge: 1
        after = node.driver()
        assert node.register().name == "csi.hotshard.io"
        target = node.target("during")
        node.publish("during", target, attributes={"origin": data.origin})
        driver.terminate()
        assert sorted(os.listdir(target)) == sorted(data.bodies)
        node.unpublish("during", target)
        driver = after
        settled(node, targets)
        assert node.register().name == "csi.hotshard.io"
    readers.stop()
    assert node.mounts() == mounts


@pytest.mark.slow
def test_replacing_the_keepers_pod(node, data, tmp_path):
    """SEMANTICS 12: the keeper may be replaced at any time: the driver tells the next one what to hold."""
    keeper = node.keeper()
    driver = node.driver()
    targets = published(node, data)
    readers = Readers(tmp_path, data.bodies, targets)
    for _ in range(ROUNDS):
        keeper.kill()
        before = _held(node)
        keeper = node.keeper()
        until(partial(_holds, node, before + 3), "the new keeper to hold the mounts")
        driver.kill()
        driver = node.driver()
        settled(node, targets)
    readers.stop()


def _holds(node: KubernetesNode, count: int) -> bool:
    return _held(node) == count


def _held(node: KubernetesNode) -> int:
    return (node.root / "keeper.log").read_text().count(" is held")


def test_a_mount_made_while_two_drivers_are_alive_is_taken_over(node, data):
    node.keeper()
    first = node.driver()
    second = node.driver(ready=False)
    # Kubelet may still have a connection to the first: what it mounts, the second must serve.
    target = node.target("a")
    node.publish("a", target, attributes={"origin": data.origin, "mode": "cached"})
    until(lambda: node.log().count("serving /") == 2, "the second driver")
    other = node.target("b")
    node.publish("b", other, attributes={"origin": data.origin, "mode": "cached", "ttl_s": "7"})
    first.kill()
    for path in (target, other):
        with open(f"{path}/f4", "rb") as file:
            assert file.read() == data.bodies["f4"]
    second.kill()
    node.driver()
    for path in (target, other):
        with open(f"{path}/f5", "rb") as file:
            assert file.read() == data.bodies["f5"]


def test_a_driver_that_was_killed_at_any_step_leaves_nothing_that_stays(node, data):
    node.keeper()
    driver = node.driver()
    for delay_s in STEPS_S:
        target = node.target("p")
        command = [sys.executable, "-c", _PUBLISH, node.options.csi_socket, target, data.origin]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as publishing:
            assert publishing.stdout is not None
            publishing.stdout.readline()
            time.sleep(delay_s)  # the step is what is varied
            driver.kill()
        driver = node.driver()
        node.publish("v", target, attributes={"origin": data.origin})
        assert sorted(os.listdir(target)) == sorted(data.bodies)
        assert len(node.mounts()) == 2
        node.unpublish("v", target)
        assert node.mounts() == []
        assert os.listdir(node.options.mounts_dir) == []


STEPS_S = [step / 1000 for step in (range(0, 80, 3) if FULL else (4, 12, 25))]

_PUBLISH = """
import sys, grpc
sys.path.insert(0, "tests")
from support.kubernetes_node import publish_request
from hotshard.v1 import csi_pb2_grpc
with grpc.insecure_channel(f"unix:{sys.argv[1]}") as channel:
    request = publish_request("v", sys.argv[2], attributes={"origin": sys.argv[3]})
    grpc.channel_ready_future(channel).result(10)
    print("now", flush=True)
    csi_pb2_grpc.NodeStub(channel).NodePublishVolume(request, timeout=10)
"""


def test_when_both_were_killed_the_next_driver_mounts_anew(node, data):
    keeper = node.keeper()
    driver = node.driver()
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin})
    driver.kill()
    keeper.kill()
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(target)
    node.keeper()
    node.driver()
    assert sorted(os.listdir(target)) == sorted(data.bodies)
    node.unpublish("v", target)
    assert node.mounts() == []
    assert not os.path.exists(target)


def test_a_mount_that_was_aborted_is_healed_by_the_next_publish(node, data):
    node.keeper()
    node.driver()
    targets = {name: node.target(name) for name in ("a", "b")}
    for name, target in targets.items():
        node.publish(name, target, attributes={"origin": data.origin})
    node.abort(targets["a"])
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.statvfs(targets["a"])
    until(lambda: node.stats("a", targets["a"]).volume_condition.abnormal, "the driver to notice")
    node.publish("a", targets["a"], attributes={"origin": data.origin})
    for name, target in targets.items():  # the other pod's was bound anew with it
        assert sorted(os.listdir(target)) == sorted(data.bodies)
        assert not node.stats(name, target).volume_condition.abnormal
        node.unpublish(name, target)
    assert node.mounts() == []
    assert os.listdir(node.options.mounts_dir) == []


def test_without_a_driver_for_too_long_reads_fail_instead_of_hanging(node, data):
    node.keeper(orphan_timeout_s=2)
    driver = node.driver()
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin, "mode": "cached"})
    driver.kill()
    started = time.monotonic()
    reading = subprocess.run(["cat", f"{target}/f5"], capture_output=True, timeout=30, check=False)
    assert reading.returncode == 1
    assert b"onnect" in reading.stderr or b"abort" in reading.stderr
    assert time.monotonic() - started < 10
    node.driver()  # finds it dead, and mounts it anew
    assert sorted(os.listdir(target)) == sorted(data.bodies)


def test_without_a_keeper_volumes_work_and_are_held_once_there_is_one(node, data):
    driver = node.driver()
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin, "mode": "cached"})
    assert "is not safe from a restart" in node.log()
    assert sorted(os.listdir(target)) == sorted(data.bodies)
    node.keeper()
    until(lambda: _held(node) == 1, "the keeper to be told")
    driver.kill()
    node.driver()
    with open(f"{target}/f5", "rb") as file:
        assert file.read() == data.bodies["f5"]


def test_after_a_restart_of_the_node_nothing_of_before_is_believed(node, data):
    """Kubelet publishes anew; the file that says what was mounted is from before."""
    keeper = node.keeper()
    driver = node.driver()
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin})
    driver.kill()
    keeper.kill()
    for point in reversed(node.mounts()):
        device.unmount(point.path, lazy=True)
    node.keeper()
    node.driver()
    assert node.mounts() == []
    assert os.listdir(node.options.mounts_dir) == []
    node.publish("v", target, attributes={"origin": data.origin, "ttl_s": "9"})
    assert sorted(os.listdir(target)) == sorted(data.bodies)


def test_a_state_with_a_layout_that_this_driver_does_not_know(node, data):
    """As after a downgrade: the mount cannot be taken over, and is made anew."""
    node.keeper()
    driver = node.driver()
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin})
    keeper = KeeperLine(node.options.keeper_socket)
    keeper.connect()
    descriptors = keeper.get(keeper.names()[0])
    driver.kill()
    os.pwrite(descriptors[-1], (999).to_bytes(4, "little"), 4)
    for fd in descriptors:
        os.close(fd)
    keeper.close()
    node.driver()
    assert "has format 999" in node.log()
    assert sorted(os.listdir(target)) == sorted(data.bodies)


def test_a_ledger_that_is_lost(node, data):
    node.keeper()
    driver = node.driver()
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin})
    driver.kill()
    Path(node.options.ledger).write_text("{")
    node.driver()
    node.publish("v", target, attributes={"origin": data.origin})
    assert sorted(os.listdir(target)) == sorted(data.bodies)
    node.unpublish("v", target)
    assert node.mounts() == []


@pytest.mark.slow
def test_how_long_a_read_waits_for_the_next_driver(node, data):
    """Not a benchmark, a bound that says "seconds, not minutes"; the figures are printed."""
    node.keeper()
    driver = node.driver()
    target = node.target("p")
    node.publish("v", target, attributes={"origin": data.origin, "mode": "cached", "ttl_s": "0"})
    waits = []
    for _ in range(3):
        driver.kill()
        started = time.monotonic()
        driver = node.driver(ready=False)
        assert len(os.listdir(target)) == len(data.bodies)
        waits.append(time.monotonic() - started)
        until(lambda: node.log().rstrip().endswith(f"node {node.options.node_id}"), "the driver")
    print(f"waits {[f'{w:.2f}' for w in waits]}, median {statistics.median(waits):.2f} s")
    assert statistics.median(waits) < 10


def descendants(pid: int) -> dict[int, str]:
    """What a process has started, directly or not: pid -> state, "Z" for a zombie."""
    found = {}
    for child in (each for thread in threads(pid) for each in thread):
        with contextlib.suppress(FileNotFoundError):
            found[child] = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0]
            found |= descendants(child)
    return found


def collected(pid: int) -> bool:
    """Whether a process has ended and left nothing, not even a zombie."""
    return not os.path.exists(f"/proc/{pid}")


def threads(pid: int) -> list[list[int]]:
    """The children of each thread of a process."""
    lists = []
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir(f"/proc/{pid}/task"):
            words = Path(f"/proc/{pid}/task/{task}/children").read_text().split()
            lists.append([int(word) for word in words])
    return lists


def test_whatever_dies_in_the_drivers_pod_leaves_no_zombie(node, data):
    """The driver is the first process there: it inherits readers, and nobody else collects them."""
    node.keeper()
    pod = node.driver()
    target = node.target("p1")
    node.publish("v1", target, attributes={"origin": data.origin})

    def alive() -> list[int]:
        """What runs, once there are no zombies: the nursery and the reader."""

        def both() -> list[int]:
            states = descendants(pod.pid)
            whole = len(states) == 2 and "Z" not in states.values()
            return list(states) if whole else []

        return until(both, "a nursery and a reader, and nothing else")

    for _ in range(2):
        for victim in alive():  # each kind dies alone, and then the other
            os.kill(victim, signal.SIGKILL)
            until(partial(collected, victim), "it to be collected")
            alive()
            assert Path(f"{target}/f3").read_bytes() == data.bodies["f3"]
    node.unpublish("v1", target)
    until(lambda: len(descendants(pod.pid)) == 1, "the reader to end with its volume")
