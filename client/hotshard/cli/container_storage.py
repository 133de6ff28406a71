"""`hotshard csi serve` and `hotshard csi keeper`: what the pods on a Kubernetes node run (docs/CSI.md)."""

import os
import sys
from typing import Any

import click

from hotshard.cli.exits import Failure
from hotshard.csi import options as defaults


@click.group(no_args_is_help=False)
def csi() -> None:
    """The CSI driver of a Kubernetes node, and its keeper."""


@csi.command(short_help="Publish volumes to the pods of this node.")
@click.option(
    "--node-id",
    envvar="NODE_NAME",
    required=True,
    metavar="NAME",
    help="The node's name in Kubernetes. [env: NODE_NAME]",
)
@click.option(
    "--driver-name", "name", metavar="NAME", default=defaults.NAME, show_default=True,
    help="The name of the CSIDriver object.",
)  # fmt: skip
@click.option(
    "--kubelet-dir", metavar="DIR", default=defaults.KUBELET_DIR, show_default=True,
    help="Kubelet's directory, at the same path as on the host.",
)  # fmt: skip
@click.option(
    "--client-socket", metavar="PATH", default="/run/hotshard/local.sock", show_default=True,
    help="The cache server's local socket. Volumes with `mode: socket` are its directory, read-only.",
)  # fmt: skip
@click.option(
    "--keeper-socket", metavar="PATH", default=defaults.KEEPER_SOCKET, show_default=True,
    help="The socket of `hotshard csi keeper`.",
)  # fmt: skip
@click.option(
    "--direct", type=click.Choice(["never", "auto"]), default="never", show_default=True,
    help="auto: read the origin here while the cache server is away; needs its credentials, or its files.",
)  # fmt: skip
@click.option(
    "--orphan-timeout-s", type=float, default=defaults.ORPHAN_TIMEOUT_S, show_default=True,
    metavar="SECONDS", help="Give up a mount that nobody could serve for so long.",
)  # fmt: skip
@click.option(
    "--admin-listen", metavar="HOST:PORT", default="",
    help="Serve /healthz, /readyz and /metrics there.",
)  # fmt: skip
def serve(**given: Any) -> None:
    """Serve CSI to kubelet until SIGTERM, and register with it; needs a privileged container.

    What it mounted stays mounted when it ends, however it ends: the next one goes on serving it.
    """
    options = defaults.DriverOptions(**given)
    from hotshard.mount.nursery import Nursery

    nursery = Nursery()  # loads while the driver does
    from hotshard.csi.driver import run

    run(options, nursery)


@csi.command(short_help="Hold the mounts while the driver is replaced.")
@click.option(
    "--socket", metavar="PATH", default=defaults.KEEPER_SOCKET, show_default=True,
    help="Where the driver finds it. The directory must be of this user alone.",
)  # fmt: skip
@click.option(
    "--orphan-timeout-s", type=float, default=defaults.ORPHAN_TIMEOUT_S, show_default=True,
    metavar="SECONDS", help="Let go of a mount that nobody served for so long: its readers get ENOTCONN.",
)  # fmt: skip
def keeper(socket: str, orphan_timeout_s: float) -> None:
    """Hold the descriptors of the node's mounts. Needs no privileges, and very little memory."""
    if orphan_timeout_s <= 0:
        raise Failure("--orphan-timeout-s must be positive")
    import hotshard.csi

    # By path, and without site packages: importing the package would treble its memory.
    program = os.path.join(os.path.dirname(hotshard.csi.__file__), "keeper.py")
    command = [sys.executable, "-I", "-S", program, socket, str(orphan_timeout_s)]
    os.execv(sys.executable, command)  # noqa: S606
