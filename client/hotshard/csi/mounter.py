"""Everything that takes privilege (CAP_SYS_ADMIN): mounting, binding, unmounting.

Paths are kubelet's or ours, checked before (`volume.check_place`). None of these functions asks a mounted
file system anything: one that is dead, or that we serve ourselves, might never answer. What is mounted
where is read from /proc/self/mountinfo.
"""

import contextlib
import ctypes
import errno
import logging
import os
import threading

from hotshard.mount import device
from hotshard.mount.command import establish
from hotshard.mount.config import Plan
from hotshard.mount.device import MountPoint
from hotshard.mount.state import State

log = logging.getLogger(__name__)

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_PRIVATE = 32, 4096, 1 << 18
_STACKED_MAX = 16
_DEAD = {errno.ENOTCONN, errno.ECONNABORTED}


class MounterError(Exception):
    """The system refused; the message says what."""


def mount(draft: Plan) -> tuple[list[int], State, Plan]:
    """Mount a file system at the plan's target, which is created; gives its descriptors and its state.

    Raises:
        DeviceError: refused.
    """
    _make_directory(draft.target, 0o700)
    return establish(draft, draft.uri)


def bind(source: str, target: str) -> None:
    """Show a mount of ours at another path, which is created; it is as read-only as its source.

    What is mounted over the one later must not appear over the other: so the source is made private first,
    and each target has its own copies only, on the node and in containers.

    Raises:
        MounterError: refused.
    """
    _mount("none", source, _MS_PRIVATE)
    _make_directory(target, 0o750)
    _mount(source, target, _MS_BIND)


def bind_directory(source: str, target: str, staging: str) -> None:
    """Show any directory at another path, read-only, without devices, setuid and programs.

    Changed flags do not propagate from the container to the node, new mounts do: so the flags are set at
    another path first.

    Raises:
        MounterError: refused; nothing is left behind.
    """
    _make_directory(staging, 0o700)
    _mount(source, staging, _MS_BIND)
    try:
        flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        _mount("none", staging, _MS_REMOUNT | _MS_BIND | flags)
        bind(staging, target)
    finally:
        clear(staging)


def clear(target: str) -> None:
    """Undo every mount at a path and remove the directory; what is not there is no error.

    Raises:
        MounterError: it stays mounted, or something else lies there.
    """
    for _ in range(_STACKED_MAX):
        if device.mounted_at(target) is None:
            break
        try:
            device.unmount(target)
        except OSError as error:
            if error.errno not in {errno.EBUSY, errno.EINVAL}:
                raise MounterError(f"{target}: {error.strerror}") from error
            log.warning("%s is busy on the node; detached", target)
            with contextlib.suppress(OSError):
                device.unmount(target, lazy=True)
    else:
        raise MounterError(f"{target}: still mounted after {_STACKED_MAX} unmounts")
    try:
        os.rmdir(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise MounterError(f"{target}: {error.strerror}; it was not removed") from error


def mounted() -> dict[str, MountPoint]:
    """What is mounted, topmost, by path."""
    return {point.path: point for point in device.mount_points()}


def gone(path: str, timeout_s: float = 1.0) -> bool:
    """Whether nobody holds a FUSE mount any more; asked in a thread, as one that is held may not answer."""
    answer: list[bool] = []

    def ask() -> None:
        try:
            os.statvfs(path)
        except OSError as error:
            answer.append(error.errno in _DEAD)

    thread = threading.Thread(target=ask, name="statvfs", daemon=True)
    thread.start()
    thread.join(timeout_s)
    return bool(answer and answer[0])


def same(one: str, other: str) -> bool:
    """Whether two paths are one directory, neither of them on a mount of ours."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def _make_directory(path: str, mode: int) -> None:
    """Not os.makedirs: that looks at what it finds, and a dead mount fails then."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, mode)


def _mount(source: str, target: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None) != 0:
        code = ctypes.get_errno()
        hint = "; the container must be privileged" if code == errno.EPERM else ""
        raise MounterError(f"mount of {source} at {target}: {os.strerror(code)}{hint}")
