"""The CSI services: translates between gRPC and `volumes`.

Which code stands for what is the specification's: INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION,
ABORTED and NOT_FOUND come as `Rejected`; what the cache server or the system refuse is mapped below. Only
volume ids, paths and addresses are logged: secrets and volume contexts may hold tokens.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, TypeVar

import grpc

from hotshard.core.errors import (
    HotshardError,
    InvalidRequest,
    NotFound,
    Overloaded,
    PermissionDenied,
    ServerUnavailable,
)
from hotshard.csi.mounter import MounterError
from hotshard.csi.options import DriverOptions
from hotshard.csi.served import Served
from hotshard.csi.volume import Rejected, Request, check_place, wish
from hotshard.csi.volumes import Volumes
from hotshard.mount.device import DeviceError
from hotshard.v1 import csi_pb2, csi_pb2_grpc

log = logging.getLogger(__name__)

_RPC = csi_pb2.NodeServiceCapability.RPC
CAPABILITIES = (_RPC.GET_VOLUME_STATS, _RPC.VOLUME_CONDITION, _RPC.VOLUME_MOUNT_GROUP)
_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (NotFound, grpc.StatusCode.NOT_FOUND),
    (PermissionDenied, grpc.StatusCode.PERMISSION_DENIED),
    (Overloaded, grpc.StatusCode.UNAVAILABLE),
    (ServerUnavailable, grpc.StatusCode.UNAVAILABLE),
)
_Reply = TypeVar("_Reply")


class Calls:
    """Runs calls: turns what they raise into a status, logs and counts them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[tuple[str, str]] = Counter()
        """By method and code."""

    def run(self, context: grpc.ServicerContext, method: str, call: Callable[[], _Reply]) -> _Reply:
        """The reply of a call, or its status."""
        code, message = grpc.StatusCode.OK, ""
        try:
            return call()
        except Rejected as error:
            code, message = grpc.StatusCode[error.code], str(error)
        except (HotshardError, DeviceError, MounterError, OSError) as error:
            code, message = code_of(error), str(error)
        except Exception:
            log.exception("%s", method)
            code, message = grpc.StatusCode.INTERNAL, "a defect; the driver's log has the details"
        finally:
            with self._lock:
                self.counts[method, code.name] += 1
        log.warning("%s: %s: %s", method, code.name, message)
        context.abort(code, message)
        raise AssertionError("abort does not return")


def code_of(error: Exception) -> grpc.StatusCode:
    """The status that an error of the cache server or of the system becomes."""
    return next(
        (code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL
    )


class Identity(csi_pb2_grpc.IdentityServicer):
    """Who we are."""

    def __init__(self, options: DriverOptions, ready: Callable[[], bool]) -> None:
        self._options = options
        self._ready = ready

    def GetPluginInfo(self, request: Any, context: Any) -> csi_pb2.GetPluginInfoResponse:
        """Name and version."""
        return csi_pb2.GetPluginInfoResponse(
            name=self._options.name, vendor_version=version("hotshard")
        )

    def GetPluginCapabilities(
        self, request: Any, context: Any
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """None: there is no controller, and no topology."""
        return csi_pb2.GetPluginCapabilitiesResponse()

    def Probe(self, request: Any, context: Any) -> csi_pb2.ProbeResponse:
        """Whether calls are welcome."""
        reply = csi_pb2.ProbeResponse()
        reply.ready.value = self._ready()
        return reply


class Node(csi_pb2_grpc.NodeServicer):
    """Volumes of this node."""

    def __init__(self, options: DriverOptions, volumes: Volumes, calls: Calls) -> None:
        self._options = options
        self._volumes = volumes
        self._calls = calls

    def NodeGetInfo(self, request: Any, context: Any) -> csi_pb2.NodeGetInfoResponse:
        """The node's name."""
        return csi_pb2.NodeGetInfoResponse(node_id=self._options.node_id)

    def NodeGetCapabilities(
        self, request: Any, context: Any
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """What there is beyond publishing."""
        able = [csi_pb2.NodeServiceCapability(rpc=_RPC(type=each)) for each in CAPABILITIES]
        return csi_pb2.NodeGetCapabilitiesResponse(capabilities=able)

    def NodePublishVolume(
        self, request: csi_pb2.NodePublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Make a volume appear at its target path."""

        def call() -> csi_pb2.NodePublishVolumeResponse:
            self._volumes.publish(wish(asked(request), self._options.kubelet_dir))
            return csi_pb2.NodePublishVolumeResponse()

        return self._calls.run(context, "NodePublishVolume", call)

    def NodeUnpublishVolume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Undo that."""

        def call() -> csi_pb2.NodeUnpublishVolumeResponse:
            place = (request.volume_id, request.target_path)
            check_place(*place, self._options.kubelet_dir, "target_path")
            self._volumes.unpublish(*place)
            return csi_pb2.NodeUnpublishVolumeResponse()

        return self._calls.run(context, "NodeUnpublishVolume", call)

    def NodeGetVolumeStats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest, context: grpc.ServicerContext
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """What is known of its size, and whether it works."""

        def call() -> csi_pb2.NodeGetVolumeStatsResponse:
            place = (request.volume_id, request.volume_path)
            check_place(*place, self._options.kubelet_dir, "volume_path")
            volume, served = self._volumes.find(*place)
            if not volume.mount:
                return stats(0, 0, self._socket_trouble())
            if served is None or served.silent():
                return stats(0, 0, _trouble(served))
            found = os.statvfs(request.volume_path)
            return stats(found.f_blocks * found.f_frsize, found.f_files, "")

        return self._calls.run(context, "NodeGetVolumeStats", call)

    def _socket_trouble(self) -> str:
        path = self._options.client_socket
        return "" if os.path.exists(path) else f"there is no cache server: {path} does not exist"


def asked(request: csi_pb2.NodePublishVolumeRequest) -> Request:
    """The request, as far as it concerns us."""
    capability = request.volume_capability
    return Request(
        request.volume_id,
        request.target_path,
        (capability.WhichOneof("access_type") or "")
        if request.HasField("volume_capability")
        else "",
        capability.access_mode.mode,
        request.readonly,
        dict(request.volume_context),
        tuple(capability.mount.mount_flags),
        capability.mount.volume_mount_group,
    )


def stats(size: int, files: int, trouble: str) -> csi_pb2.NodeGetVolumeStatsResponse:
    """A reply; without trouble the volume is in order. Size and files are those listed so far."""
    usage = csi_pb2.VolumeUsage
    return csi_pb2.NodeGetVolumeStatsResponse(
        usage=[
            usage(total=size, used=size, unit=usage.BYTES),
            usage(total=files, used=files, unit=usage.INODES),
        ],
        volume_condition=csi_pb2.VolumeCondition(
            abnormal=bool(trouble), message=trouble or "in order"
        ),
    )


def _trouble(served: Served | None) -> str:
    if served is None or served.dead():
        return "the file system has died; it is mounted anew at the next NodePublishVolume"
    return f"nobody has served the file system for {served.silent_s():.0f} s"
