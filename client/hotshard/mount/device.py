"""System calls of a mount: /dev/fuse, mount(2), umount2(2), backing files, the files under /sys.

None of these functions touches a path on a mount of ours: a process that waits for its own reader waits
for ever.
"""

import ctypes
import errno
import fcntl
import os
import select
from dataclasses import dataclass

from hotshard.mount import abi

FSTYPE = "fuse.hotshard"
MNT_FORCE, MNT_DETACH = 1, 2
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOATIME = 1, 2, 4, 1024
_SYS_CONNECTIONS = "/sys/fs/fuse/connections"
_FUSE = os.makedev(10, 229)
_CAP_SYS_ADMIN = 21
_PRIVILEGE = (
    "mount(2) is not permitted: run as root; in a container, with CAP_SYS_ADMIN (privileged)"
)


class DeviceError(Exception):
    """A mount that cannot be made or undone; the message says what to do about it."""


class NotPermitted(DeviceError):
    """It takes more privilege than we have."""


class NoDevice(DeviceError):
    """There is no /dev/fuse here, as in a container that was not given it."""


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A line of /proc/self/mountinfo."""

    path: str
    device: str
    """Major and minor number, "0:52"."""
    source: str
    fstype: str


def check_privilege() -> None:
    """Find out whether this process may mount at all.

    Raises:
        NotPermitted: it may not.
    """
    with open("/proc/self/status", encoding="utf-8", errors="replace") as lines:
        effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    if not int(effective, 16) >> _CAP_SYS_ADMIN & 1:
        raise NotPermitted(_PRIVILEGE)


def open_device() -> int:
    """A new descriptor of /dev/fuse.

    Raises:
        NoDevice: the machine or the container does not have it.
        DeviceError: it does not give us one.
    """
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NoDevice(
            "there is no /dev/fuse: load the module (modprobe fuse), or give the container the device"
        ) from error
    except PermissionError as error:
        raise NotPermitted(
            f"/dev/fuse may not be opened ({error.strerror}): run as root, and give a container the device"
        ) from error
    except OSError as error:
        raise DeviceError(f"/dev/fuse cannot be opened: {error.strerror}") from error
    if os.fstat(fd).st_rdev != _FUSE:
        os.close(fd)
        raise DeviceError(
            "/dev/fuse is another device: make the right one (mknod /dev/fuse c 10 229)"
        )
    return fd


def clone(fd: int) -> int:
    """A second descriptor of the connection, with a queue of its own.

    Whoever closes it last fails the requests read from it, so the keeper holds every one.
    """
    other = open_device()
    fcntl.ioctl(other, abi.IOC_CLONE, fd.to_bytes(4, "little"))
    return other


def mount(fd: int, source: str, target: str, *, allow_other: bool) -> None:
    """Mount the connection, read-only.

    Raises:
        DeviceError: refused.
    """
    options = (
        f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},default_permissions"
    )
    if allow_other:
        options += ",allow_other"
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOATIME
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [os.fsencode(text) for text in (source, target, FSTYPE)]
    if libc.mount(*arguments, flags, options.encode()) == 0:
        return
    code = ctypes.get_errno()
    if code in {errno.EPERM, errno.EACCES}:
        raise NotPermitted(_PRIVILEGE)
    if code == errno.ENODEV:
        raise DeviceError("this kernel has no FUSE (CONFIG_FUSE_FS)")
    raise DeviceError(f"mount(2) on {target}: {os.strerror(code)}")


def unmount(target: str, *, lazy: bool = False, force: bool = False) -> None:
    """Unmount; with force, whatever waits for the file system fails first, wherever it is mounted.

    Raises:
        OSError: as umount2(2) gives it; EBUSY: files are open there.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    flags = (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0)
    if libc.umount2(os.fsencode(target), flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def mount_points() -> list[MountPoint]:
    """Every mount this process sees, oldest first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            fields, kind = left.split(" "), right.split(" ")
            found.append(MountPoint(_unescape(fields[4]), fields[2], _unescape(kind[1]), kind[0]))
    return found


def mounted_at(path: str) -> MountPoint | None:
    """What is mounted right there, topmost; None: nothing."""
    for point in reversed(mount_points()):
        if point.path == path:
            return point
    return None


def ended(fd: int) -> bool:
    """Whether the kernel has ended the connection: unmounted, or aborted."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))


def abort(device: str) -> bool:
    """Abort the connection of a mount: everything that waits for it fails. False: /sys does not let us."""
    minor = device.partition(":")[2]
    try:
        fd = os.open(f"{_SYS_CONNECTIONS}/{minor}/abort", os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(fd, b"1")
    finally:
        os.close(fd)
    return True


def set_read_ahead(device: str, kib: int) -> bool:
    """How far the kernel reads ahead of a sequential reader; False: /sys does not let us."""
    try:
        fd = os.open(f"/sys/class/bdi/{device}/read_ahead_kb", os.O_WRONLY)
    except OSError:
        return False
    try:
        os.write(fd, str(kib).encode())
    finally:
        os.close(fd)
    return True


def backing_open(fd: int, backing: int) -> int:
    """Register an open file as backing of passthrough reads; gives its id on this connection."""
    # A bytearray, not bytes: with bytes ioctl() gives the buffer back and the id is lost.
    request = bytearray(abi.BACKING_MAP.pack(backing, 0, 0))
    return int(fcntl.ioctl(fd, abi.IOC_BACKING_OPEN, request))


def backing_close(fd: int, backing_id: int) -> None:
    """Forget a backing id; handles opened with it keep it in use."""
    fcntl.ioctl(fd, abi.IOC_BACKING_CLOSE, backing_id.to_bytes(4, "little", signed=True))


def holders(device: str) -> list[tuple[int, str, str]]:
    """(pid, command, path) of processes with a file open, a mapping or a directory on a mount."""
    major, minor = (int(part) for part in device.split(":"))
    number = os.makedev(major, minor)
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        path = _holds(int(name), number, device)
        if path:
            found.append((int(name), _command(int(name)), path))
    return found


def _holds(pid: int, number: int, device: str) -> str:
    try:
        for link in ("cwd", "root"):
            if _mount_of(f"/proc/{pid}/{link}") == number:
                return os.readlink(f"/proc/{pid}/{link}")
        for fd in os.listdir(f"/proc/{pid}/fd"):
            if _fd_device(pid, fd) == device:
                return os.readlink(f"/proc/{pid}/fd/{fd}")
        wanted = f"{os.major(number):02x}:{os.minor(number):02x}"
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                fields = line.split(maxsplit=5)
                if fields[3] == wanted:
                    return fields[5].strip() if len(fields) > 5 else "a mapping"
    except OSError:
        return ""  # it ended, or is none of our business
    return ""


def _mount_of(link: str) -> int:
    """The device a /proc link leads to, without asking the file system there."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = bytearray(256)
    raw = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    dont_sync = 0x4000
    if libc.statx(-100, os.fsencode(link), dont_sync, 0x1, raw) != 0:
        return -1
    return os.makedev(
        int.from_bytes(buffer[136:140], "little"), int.from_bytes(buffer[140:144], "little")
    )


def _fd_device(pid: int, fd: str) -> str:
    target = f"/proc/{pid}/fd/{fd}"
    number = _mount_of(target)
    return "" if number < 0 else f"{os.major(number)}:{os.minor(number)}"


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as comm:
            return comm.read().strip()
    except OSError:
        return "?"


def _unescape(text: str) -> str:
    for code in ("040", "011", "012", "134"):
        text = text.replace(f"\\{code}", chr(int(code, 8)))
    return text
