"""Kubelet's side of the driver: the two sockets it looks for, and how it learns of us.

Kubelet watches plugins_registry: for a socket that appears there it asks who it is, and where the CSI
services are. It knows drivers by name only, and forgets one when its registration socket goes away. So
every instance of the driver uses the same path, a new instance puts its socket in place of the old one by
rename, and nobody removes it at the end: while two instances are alive, the later one is registered.
"""

import logging
import os
import threading
from typing import Any

import grpc

from hotshard.csi.options import DriverOptions
from hotshard.v1 import pluginregistration_pb2, pluginregistration_pb2_grpc

log = logging.getLogger(__name__)

CSI_VERSIONS = ("1.0.0",)


class Registration(pluginregistration_pb2_grpc.RegistrationServicer):
    """Answers kubelet's plugin watcher."""

    def __init__(self, options: DriverOptions) -> None:
        self._options = options
        self.registered = threading.Event()
        """Kubelet has accepted us."""

    def GetInfo(self, request: Any, context: Any) -> pluginregistration_pb2.PluginInfo:
        """Who we are."""
        return pluginregistration_pb2.PluginInfo(
            type="CSIPlugin",
            name=self._options.name,
            endpoint=self._options.csi_socket,
            supported_versions=CSI_VERSIONS,
        )

    def NotifyRegistrationStatus(
        self, request: pluginregistration_pb2.RegistrationStatus, context: Any
    ) -> pluginregistration_pb2.RegistrationStatusResponse:
        """What became of it."""
        if request.plugin_registered:
            log.info("kubelet has registered %s", self._options.name)
            self.registered.set()
        else:
            log.error("kubelet refuses to register %s: %s", self._options.name, request.error)
            self.registered.clear()
        return pluginregistration_pb2.RegistrationStatusResponse()


def listen(server: grpc.Server, temporary: str, path: str) -> None:
    """Start a server on a socket that gets its name when it can be connected to.

    gRPC unlinks the socket it has bound when it is stopped; that is the temporary name, so the socket of
    a successor stays.

    Raises:
        OSError: the socket cannot be made there.
    """
    server.add_insecure_port(f"unix:{temporary}")
    server.start()
    os.chmod(temporary, 0o600)
    os.rename(temporary, path)
