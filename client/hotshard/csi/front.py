"""What kubelet and operators talk to: gRPC and the admin port; loaded when the mounts are served."""

import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from hotshard.csi import figures
from hotshard.csi.options import DriverOptions
from hotshard.csi.registration import Registration, listen
from hotshard.csi.service import Calls, Identity, Node
from hotshard.csi.volumes import Volumes
from hotshard.v1 import csi_pb2_grpc, pluginregistration_pb2_grpc

log = logging.getLogger(__name__)

THREADS = 8
CALLS_MAX = 64
_HTTP_TIMEOUT_S = 2.0


class Front:
    """Everything that listens."""

    def __init__(self, options: DriverOptions, volumes: Volumes) -> None:
        self._options = options
        self._volumes = volumes
        self._calls = Calls()
        self._registration = Registration(options)
        self._open = threading.Event()
        self._settled = False

    def ready(self) -> bool:
        """Whether this driver can take over: kubelet can call, and what was mounted is served (once)."""
        self._settled = self._settled or (self._open.is_set() and self._volumes.settled())
        return self._settled

    def open(self) -> None:
        """Listen; the registration last, because kubelet calls at once.

        Raises:
            OSError: a socket or the port cannot be had.
        """
        options = self._options
        if options.admin_listen:
            self._listen_admin(options.admin_listen)
        services = self._server(THREADS)
        csi_pb2_grpc.add_IdentityServicer_to_server(Identity(options, self.ready), services)
        csi_pb2_grpc.add_NodeServicer_to_server(Node(options, self._volumes, self._calls), services)
        listen(services, f"{options.plugin_dir}/.csi-{os.getpid()}.sock", options.csi_socket)
        self._open.set()
        registry = self._server(2)
        pluginregistration_pb2_grpc.add_RegistrationServicer_to_server(self._registration, registry)
        listen(registry, options.registration_temporary, options.registration_socket)
        self._servers = (services, registry)
        log.info("serving %s for node %s", options.csi_socket, options.node_id)

    def metrics(self) -> str:
        """Prometheus text."""
        values = self._volumes.counts()
        values["hotshard_csi_registered",] = float(self._registration.registered.is_set())
        for (method, code), count in sorted(self._calls.counts.items()):
            values["hotshard_csi_calls_total", "method", method, "code", code] = count
        return figures.render(values, self._volumes.mount_metrics())

    @staticmethod
    def _server(threads: int) -> grpc.Server:
        pool = ThreadPoolExecutor(threads, thread_name_prefix="csi")
        return grpc.server(pool, maximum_concurrent_rpcs=CALLS_MAX)

    def _listen_admin(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        listener = socket.create_server((host.strip("[]"), int(port)), reuse_port=True)
        threading.Thread(
            target=self._answer_all, args=(listener,), name="admin", daemon=True
        ).start()

    def _answer_all(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.settimeout(_HTTP_TIMEOUT_S)
                    connection.sendall(self._answer(connection.recv(4096)))
                except OSError:
                    continue

    def _answer(self, request: bytes) -> bytes:
        words = request.split(b" ", 2)
        path = words[1].partition(b"?")[0] if len(words) == 3 and words[0] == b"GET" else b""
        status, body = "200 OK", "ok\n"
        if path == b"/readyz" and not self.ready():
            status, body = "503 Service Unavailable", "starting\n"
        elif path == b"/metrics":
            body = self.metrics()
        elif path not in {b"/healthz", b"/readyz"}:
            status, body = "404 Not Found", "there are /healthz, /readyz and /metrics\n"
        return (
            f"HTTP/1.0 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
