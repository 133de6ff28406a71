"""`mount`, `umount`, `mount-upgrade`: a prefix as a directory of this machine."""

from dataclasses import replace

import click

from hotshard.cli import exits
from hotshard.cli.session import Session


@click.command()
@click.argument("uri")
@click.argument("target", type=click.Path())
@click.option(
    "-o",
    "words",
    metavar="NAME=VALUE,...",
    multiple=True,
    help="Options of the mount: see docs/MOUNT.md. May be repeated.",
)
@click.option(
    "--foreground",
    is_flag=True,
    help="Serve in this process and log here, until it is unmounted, SIGTERM or Ctrl-C.",
)
@click.pass_obj
def mount(
    session: Session, uri: str, target: str, words: tuple[str, ...], foreground: bool
) -> None:
    """Mount the prefix URI, read-only, at the empty directory TARGET.

    Returns when files can be read. Needs root, /dev/fuse and a cache server on this node.
    """
    from hotshard.core.errors import ServerUnavailable
    from hotshard.mount import command
    from hotshard.mount.config import parse_options
    from hotshard.mount.device import DeviceError

    options = parse_options(",".join(words))
    if options.address is None:
        options = replace(options, address=session.address)
    try:
        command.mount(uri, target, options, foreground=foreground)
    except DeviceError as error:
        raise _failure(error) from error
    except ServerUnavailable as error:
        what, remedy = command.absence(error)
        raise exits.Failure(what, remedy, exits.UNAVAILABLE) from error


@click.command()
@click.argument("target", type=click.Path())
@click.option("--lazy", is_flag=True, help="Detach it now; what is open is served until closed.")
def umount(target: str, lazy: bool) -> None:
    """Unmount TARGET. While files are open there, say which processes hold them."""
    from hotshard.mount import command
    from hotshard.mount.device import DeviceError

    try:
        command.umount(target, lazy=lazy)
    except DeviceError as error:
        raise _failure(error) from error


@click.command("mount-upgrade")
@click.argument("target", type=click.Path())
def mount_upgrade(target: str) -> None:
    """Have the mount at TARGET served by the code that is installed now. Programs notice nothing."""
    from hotshard.mount import command
    from hotshard.mount.device import DeviceError

    try:
        command.upgrade(target)
    except DeviceError as error:
        raise _failure(error) from error


def _failure(error: Exception) -> exits.Failure:
    from hotshard.mount.device import NotPermitted

    code = exits.PERMISSION if isinstance(error, NotPermitted) else exits.FAILED
    return exits.Failure(str(error), code=code)
