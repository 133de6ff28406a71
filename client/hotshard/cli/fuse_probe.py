"""What FUSE can do here, found out by a mount: `python -m hotshard.cli.fuse_probe` prints it as JSON.

A process of its own, in a mount namespace of its own: whatever happens to it, no mount is left behind. The
mount answers INIT and nothing else; nobody opens anything on it.
"""

import ctypes
import json
import os
import sys
import tempfile

from hotshard.mount import device
from hotshard.mount.codec import BadRequest, parse, reply_bytes
from hotshard.mount.session import Unsupported, Wanted, negotiate

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18


def probe() -> dict[str, object]:
    """What INIT agrees on, and whether a file can back passthrough reads.

    Raises:
        DeviceError: no mount can be made.
        Unsupported: the kernel's protocol is too old.
    """
    fd = device.open_device()
    _private_mounts()
    with tempfile.TemporaryDirectory() as target:
        device.mount(fd, "hotshard-probe", target, allow_other=False)
        try:
            request = parse(os.read(fd, 1 << 20))
            agreement, payload = negotiate(request.body, Wanted())
            os.write(fd, reply_bytes(request.unique, payload))
            return {
                "protocol": f"{request.body.major}.{request.body.minor}",
                "passthrough": agreement.passthrough and _can_back(fd),
                "resend": agreement.resend,
                "readdirplus": agreement.readdirplus,
            }
        finally:
            device.unmount(target, lazy=True)


def _can_back(fd: int) -> bool:
    """Whether the kernel takes a file to read by itself: that needs privileges, too."""
    with tempfile.TemporaryFile() as file:
        try:
            device.backing_close(fd, device.backing_open(fd, file.fileno()))
        except OSError:
            return False
    return True


def _private_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise device.NotPermitted(
            f"unshare(2): {os.strerror(ctypes.get_errno())}: run as root to have FUSE probed"
        )
    libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)


def main() -> int:
    """Print what was found, or why nothing could be."""
    found: dict[str, object]
    try:
        found = probe()
    except device.NotPermitted as error:
        found = {"skipped": str(error)}
    except device.NoDevice as error:
        found = {"missing": str(error)}
    except (device.DeviceError, Unsupported, BadRequest, OSError) as error:
        found = {"error": str(error)}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
