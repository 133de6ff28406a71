"""A Kubernetes node as far as a CSI driver sees one: kubelet's directories, its calls, and pods.

The directory is a shared mount, as a node's file system is. The driver's pod has a mount namespace of its
own that propagates both ways (`mountPropagation: Bidirectional`) and a process namespace: when its first
process dies, the kernel kills the others, as in a container. Kubelet is played by a real gRPC client, which
also registers plugins as kubelet's plugin watcher does.
"""

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import grpc

from hotshard.cli.ports import free_ports
from hotshard.csi.options import DriverOptions
from hotshard.mount import device
from hotshard.v1 import csi_pb2, csi_pb2_grpc, pluginregistration_pb2, pluginregistration_pb2_grpc
from support.mounts import LIFETIME_S
from support.waiting import until

NODE = "node-1"
_MS_BIND, _MS_REC, _MS_SHARED = 4096, 16384, 1 << 20
_mode = csi_pb2.VolumeCapability.AccessMode


class Pod:
    """A container: its first process, and all that die with it."""

    def __init__(self, command: list[str], log: Path, *, isolated: bool = True) -> None:
        self.log = log
        if isolated:
            namespaces = ["--mount", "--propagation", "unchanged", "--pid", "--fork"]
            command = ["unshare", *namespaces, "--kill-child=SIGKILL", "--", *command]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HOTSHARD_")}
        with log.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        self.pid = self._first() if isolated else self._process.pid
        self._pidfd = os.pidfd_open(self.pid)

    def _first(self) -> int:
        def child() -> int:
            pid = self._process.pid
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            return int(text.split()[0]) if text else 0

        return until(child, "the first process of the pod")

    def kill(self) -> None:
        """SIGKILL, and wait until everything in it is gone."""
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM to its first process, as kubelet does; wait for the end."""
        self._end(signal.SIGTERM)

    def wait(self) -> int:
        """Until it ends by itself; its exit code."""
        return self._process.wait(30.0)

    def _end(self, number: int) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)
            assert select.select([self._pidfd], [], [], 30.0)[0], "the pod does not end"
        self._process.wait(30.0)

    def close(self) -> None:
        self.kill()
        os.close(self._pidfd)


class KubernetesNode:
    """One node; close it when done."""

    def __init__(self, socket: str = "") -> None:
        self.root = Path(tempfile.mkdtemp(prefix="hsn"))
        _mount(str(self.root), str(self.root), _MS_BIND)
        _mount("none", str(self.root), _MS_SHARED | _MS_REC)
        for name in ("kubelet/pods", "kubelet/plugins_registry", "run", "keep"):
            (self.root / name).mkdir(parents=True)
        (self.root / "keep").chmod(0o700)
        self.options = DriverOptions(
            node_id=NODE,
            kubelet_dir=f"{self.root}/kubelet",
            client_socket=socket or f"{self.root}/run/local.sock",
            keeper_socket=f"{self.root}/keep/keeper.sock",
        )
        self.pods: list[Pod] = []
        self.admin = ""
        self._guard = threading.Timer(LIFETIME_S, self._abort_all)
        self._guard.daemon = True
        self._guard.start()

    # -- its pods -------------------------------------------------------------------------------

    def driver(self, *, ready: bool = True) -> Pod:
        """Start the driver's pod; wait until its readiness probe succeeds."""
        given = self.options
        command = [
            sys.executable, "-m", "hotshard.cli", "csi", "serve", "--node-id", given.node_id,
            "--kubelet-dir", given.kubelet_dir, "--client-socket", given.client_socket,
            "--keeper-socket", given.keeper_socket,
        ]  # fmt: skip
        before = _inode(given.registration_socket)
        self.admin = f"127.0.0.1:{free_ports(1)[0]}"
        pod = Pod([*command, "--admin-listen", self.admin], self.root / "driver.log")
        self.pods.append(pod)
        if ready:
            until(lambda: _inode(given.registration_socket) not in {before, 0}, "the driver")
            until(lambda: self.page("/readyz").endswith("ok"), "the driver to be ready")
        return pod

    def page(self, path: str) -> str:
        """A page of the admin port of the driver started last; empty: it does not answer well."""
        try:
            with urlopen(f"http://{self.admin}{path}", timeout=10) as answer:
                return str(answer.read().decode()).strip()
        except OSError:
            return ""

    def keeper(self, orphan_timeout_s: float = 600.0) -> Pod:
        """Start the keeper's pod; wait until it can be called."""
        path = self.options.keeper_socket
        command = [sys.executable, "-m", "hotshard.cli", "csi", "keeper", "--socket", path,
                   "--orphan-timeout-s", str(orphan_timeout_s)]  # fmt: skip
        before = _inode(path)
        pod = Pod(command, self.root / "keeper.log", isolated=False)
        self.pods.append(pod)
        until(lambda: _inode(path) not in {before, 0}, "the keeper")
        return pod

    def log(self) -> str:
        return (self.root / "driver.log").read_text()

    # -- kubelet --------------------------------------------------------------------------------

    def target(self, pod: str, volume: str = "data") -> str:
        """Where kubelet wants a volume of a pod; its parent is there."""
        directory = self.root / f"kubelet/pods/{pod}/volumes/kubernetes.io~csi/{volume}"
        directory.mkdir(parents=True, exist_ok=True)
        return f"{directory}/mount"

    def call(self, method: str, request: Any, service: Any = csi_pb2_grpc.NodeStub) -> Any:
        """One call over a connection of its own, as kubelet makes them."""
        with grpc.insecure_channel(f"unix:{self.options.csi_socket}") as channel:
            return getattr(service(channel), method)(request, timeout=30.0)

    def publish(self, volume_id: str, target: str, **changes: Any) -> None:
        """NodePublishVolume; see `publish_request`."""
        self.call("NodePublishVolume", publish_request(volume_id, target, **changes))

    def unpublish(self, volume_id: str, target: str) -> None:
        """NodeUnpublishVolume."""
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=target)
        self.call("NodeUnpublishVolume", request)

    def stats(self, volume_id: str, path: str) -> csi_pb2.NodeGetVolumeStatsResponse:
        """NodeGetVolumeStats."""
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=path)
        reply: csi_pb2.NodeGetVolumeStatsResponse = self.call("NodeGetVolumeStats", request)
        return reply

    def register(self) -> pluginregistration_pb2.PluginInfo:
        """What kubelet does when a socket appears in plugins_registry; gives what it learned."""
        with grpc.insecure_channel(f"unix:{self.options.registration_socket}") as channel:
            stub = pluginregistration_pb2_grpc.RegistrationStub(channel)
            info = stub.GetInfo(pluginregistration_pb2.InfoRequest(), timeout=10.0)
            accepted = os.path.exists(info.endpoint) and info.type == "CSIPlugin"
            status = pluginregistration_pb2.RegistrationStatus(plugin_registered=accepted)
            stub.NotifyRegistrationStatus(status, timeout=10.0)
        return info

    # -- what is to be seen ---------------------------------------------------------------------

    def mounts(self) -> list[device.MountPoint]:
        """The file systems of hotshard that are mounted on this node."""
        inside = f"{self.root}/"
        points = [p for p in device.mount_points() if p.path.startswith(inside)]
        return [p for p in points if p.fstype == "fuse.hotshard"]

    def abort(self, path: str) -> None:
        """Have the kernel end the file system mounted there, as `umount -f` does."""
        aside = Path(tempfile.mkdtemp(dir=self.root))
        _mount(path, str(aside), _MS_BIND)
        device.unmount(str(aside), force=True)
        aside.rmdir()

    def _abort_all(self) -> None:
        for point in reversed(self.mounts()):
            with contextlib.suppress(OSError):
                device.unmount(point.path, lazy=True, force=True)

    def close(self) -> None:
        """End everything, unmount everything, remove everything."""
        self._guard.cancel()
        for pod in self.pods:
            pod.close()
        self._abort_all()
        for point in reversed(device.mount_points()):
            if point.path.startswith(f"{self.root}/") or point.path == str(self.root):
                with contextlib.suppress(OSError):
                    device.unmount(point.path, lazy=True)
        shutil.rmtree(self.root)


def publish_request(
    volume_id: str,
    target: str,
    *,
    attributes: dict[str, str] | None = None,
    ephemeral: bool = True,
    access_mode: int = _mode.SINGLE_NODE_WRITER,
    readonly: bool = True,
    flags: tuple[str, ...] = (),
    group: str = "",
    secrets: dict[str, str] | None = None,
) -> csi_pb2.NodePublishVolumeRequest:
    """The request that kubelet sends for an inline volume, or with changes another."""
    of_kubelet = {
        "csi.storage.k8s.io/pod.name": "trainer-0",
        "csi.storage.k8s.io/ephemeral": "true" if ephemeral else "false",
        "csi.storage.k8s.io/serviceAccount.tokens": '{"sts.amazonaws.com":{"token":"TOKEN-OF-POD"}}',
    }
    return csi_pb2.NodePublishVolumeRequest(
        volume_id=volume_id,
        target_path=target,
        readonly=readonly,
        secrets=secrets or {},
        volume_context={**of_kubelet, **(attributes or {})},
        volume_capability=csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(mount_flags=flags, volume_mount_group=group),
            access_mode=_mode(mode=access_mode),  # type: ignore[arg-type]
        ),
    )


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def _mount(source: str, target: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), None, flags, None):
        raise OSError(ctypes.get_errno(), "mount", target)
