"""What the driver is started with, and the places that follow from it."""

import os
import re
from dataclasses import dataclass

from hotshard.core.errors import ConfigError
from hotshard.options import DIRECT

NAME = "csi.hotshard.io"
KUBELET_DIR = "/var/lib/kubelet"
KEEPER_SOCKET = "/run/hotshard-keeper/keeper.sock"
ORPHAN_TIMEOUT_S = 600.0
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_SOCKET_PATH_BYTES_MAX = 107


@dataclass(frozen=True, slots=True)
class DriverOptions:
    """Options of `hotshard csi serve`."""

    node_id: str
    """The name of this node in Kubernetes."""
    name: str = NAME
    """The name of the CSIDriver object."""
    kubelet_dir: str = KUBELET_DIR
    """Kubelet's directory; the same path on the host and in the container."""
    client_socket: str = "/run/hotshard/local.sock"
    """The socket of the cache server; volumes with `mode: socket` are the directory it lies in."""
    keeper_socket: str = KEEPER_SOCKET
    """The socket of the node's keeper."""
    direct: str = "never"
    """`auto`: mounts read the origin themselves while the cache server is away, as far as the driver's pod
    can: it then needs the origin's credentials, and the same files at the same paths."""
    orphan_timeout_s: float = ORPHAN_TIMEOUT_S
    """A mount that nobody can serve for so long is given up: everything on it fails."""
    admin_listen: str = ""
    """`host:port` of /healthz, /readyz and /metrics; empty: none."""

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ConfigError: every mistake.
        """
        problems = []
        if not self.node_id or len(self.node_id.encode()) > 256:
            problems.append(
                "node id: from 1 to 256 bytes; in a pod, spec.nodeName by the downward API"
            )
        if not _NAME.fullmatch(self.name):
            problems.append(
                f"driver name {self.name!r}: a domain name in lower case, at most 63 characters"
            )
        for what, path in (("kubelet dir", self.kubelet_dir), ("client socket", self.client_socket),
                           ("keeper socket", self.keeper_socket)):  # fmt: skip
            if os.path.normpath(path) != path or not path.startswith("/"):
                problems.append(f"{what} {path!r}: an absolute path, without . and ..")
        if len(os.fsencode(self.registration_temporary)) > _SOCKET_PATH_BYTES_MAX:
            problems.append(f"{self.registration_temporary}: a socket's path has at most 107 bytes")
        if os.path.dirname(self.keeper_socket) == self.published_dir:
            problems.append(
                f"keeper socket: must not lie in {self.published_dir}, which pods with mode: socket see"
            )
        if self.direct not in DIRECT:
            problems.append(f"direct {self.direct!r}: one of {', '.join(DIRECT)}")
        if self.orphan_timeout_s <= 0:
            problems.append("orphan timeout: must be positive")
        if problems:
            raise ConfigError(problems, source="options of the CSI driver")

    @property
    def plugin_dir(self) -> str:
        """Everything the driver keeps."""
        return f"{self.kubelet_dir}/plugins/{self.name}"

    @property
    def csi_socket(self) -> str:
        """Where kubelet finds the CSI services."""
        return f"{self.plugin_dir}/csi.sock"

    @property
    def registration_socket(self) -> str:
        """Where kubelet finds out about us; the same path for every instance of the driver."""
        return f"{self.kubelet_dir}/plugins_registry/{self.name}-reg.sock"

    @property
    def registration_temporary(self) -> str:
        """Where that socket is bound; kubelet does not look at names that begin with a dot."""
        return f"{self.kubelet_dir}/plugins_registry/.{self.name}-{os.getpid()}.sock"

    @property
    def mounts_dir(self) -> str:
        """Where each file system is mounted once, before it is bound to the pods."""
        return f"{self.plugin_dir}/mounts"

    @property
    def metrics_dir(self) -> str:
        """Where the readers of the mounts write their metrics."""
        return f"{self.plugin_dir}/metrics"

    @property
    def ledger(self) -> str:
        """The file that says what is published."""
        return f"{self.plugin_dir}/volumes.json"

    @property
    def published_dir(self) -> str:
        """What a volume with `mode: socket` is."""
        return os.path.dirname(self.client_socket)
