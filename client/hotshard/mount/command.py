"""Mount and unmount: what `hotshard mount`, `hotshard umount` and mount(8) call.

Everything that can be wrong is looked for before the mount is made, so that a mistake is a message and
not a dead directory. INIT is answered here, so that a reader never meets a connection without an
agreement.
"""

import contextlib
import errno
import getopt
import os
import select
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from hotshard.core.errors import (
    ConfigError,
    HotshardError,
    InvalidRequest,
    NotFound,
    ServerUnavailable,
)
from hotshard.core.uri import parse
from hotshard.mount import codec, device, session
from hotshard.mount.config import MountOptions, Plan, parse_options
from hotshard.mount.device import DeviceError, NotPermitted
from hotshard.mount.keeper import HEEDED
from hotshard.mount.session import Wanted
from hotshard.mount.state import State

if TYPE_CHECKING:
    from hotshard.mount.source import Source

READY_TIMEOUT_S = 120.0  # for a starved machine: a keeper that dies is noticed at once
_NO_OPEN = "this kernel cannot open without asking (mode=no_open)"


def mount(
    uri: str,
    target: str,
    options: MountOptions | None = None,
    *,
    foreground: bool = False,
    directory: str | None = None,
) -> int:
    """Mount a prefix; returns when files can be read, with the keeper's pid.

    In the foreground it does not return: this process becomes the keeper.

    Args:
        uri: the prefix, `s3://bucket/prefix` or `file:///dir`.
        target: the mount point: an existing, empty directory.
        options: see `MountOptions`.
        foreground: this process is to be the keeper, instead of one of its own.
        directory: serve this local directory as the prefix, without a cache server.

    Raises:
        DeviceError: it cannot be mounted there; the message says why and what to do.
        HotshardError: the address, the cache server or the origin refuse.
    """
    from hotshard.mount import survey
    from hotshard.mount.late import server_socket

    options = options or MountOptions()
    prefix = parse(uri if uri.endswith("/") else uri + "/").uri
    device.check_privilege()
    os.close(device.open_device())
    target = check_target(target)
    if directory is None:  # readers to come find the server there, even while it is away
        options = replace(options, address=server_socket(options.address))
    draft = Plan(prefix, target, "", time.time_ns(), directory, options)
    sizes = check_source(draft)
    if options.mode == "auto":
        mode = survey.choose(sizes, immutable=options.immutable)
        draft = replace(draft, options=replace(options, mode=mode))
    # A signal would leave a dead mount now: it waits until there is a keeper to heed it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    try:
        devices, state, plan = establish(draft, uri)
        if foreground:
            _become_keeper(devices, state, os.open(os.devnull, os.O_WRONLY), plan)
        notify, notify_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            _detach(plan)
            _become_keeper(devices, state, notify_write, plan)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for fd in (notify_write, *devices, state.fd):
        os.close(fd)
    _await_ready(pid, notify, plan)
    return pid


def umount(target: str, *, lazy: bool = False) -> None:
    """Unmount.

    Raises:
        DeviceError: nothing of ours is mounted there, or files are open; the message says who holds them.
    """
    path = _resolved(target)
    point = _mount_of_ours(path)
    try:
        device.unmount(path, lazy=lazy)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DeviceError(_busy(path, point.device)) from error
        if error.errno == errno.EPERM:
            raise NotPermitted(f"{path}: not permitted to unmount: run as root") from error
        raise DeviceError(f"{path}: {error.strerror}") from error


def upgrade(target: str) -> None:
    """Have the reader of a mount replaced by one from the code as it is now on disk.

    Raises:
        DeviceError: no keeper of such a mount is known, or it is somebody else's.
    """
    path = _resolved(target)
    pid = keeper_of(_mount_of_ours(path).device)
    if pid is None:
        raise DeviceError(
            f"no keeper of {path} is to be seen: it is the CSI driver's, or another container's, or dead"
        )
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError as error:
        raise NotPermitted(f"{path}: not permitted to upgrade: run as root") from error


def _mount_of_ours(path: str) -> device.MountPoint:
    point = device.mounted_at(path)
    if point is None:
        raise DeviceError(f"{path} is no hotshard mount: nothing is mounted there")
    if point.fstype != device.FSTYPE:
        raise DeviceError(f"{path} is no hotshard mount: {point.source} ({point.fstype}) is")
    return point


def keeper_of(device_number: str) -> int | None:
    """The keeper of a mount, found by its command line."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if b"hotshard.mount.keeper" in words:
                plan = next((word for word in words if word.startswith(b'{"uri"')), None)
                if plan is not None and Plan.from_json(plan.decode()).device == device_number:
                    return int(name)
    return None


def check_target(target: str) -> str:
    """The mount point as an absolute path.

    Raises:
        DeviceError: it cannot serve as one.
    """
    path = _resolved(target)
    point = device.mounted_at(path)
    if point is not None and point.fstype.startswith("fuse"):
        # Not looked into: a dead mount would not answer.
        raise DeviceError(
            f"{path} is busy: {point.source} is mounted there (hotshard umount {path})"
        )
    try:
        names = os.listdir(path)
    except FileNotFoundError as error:
        raise DeviceError(f"{path} does not exist: create it first (mkdir -p {path})") from error
    except NotADirectoryError as error:
        raise DeviceError(f"{path} is no directory") from error
    except OSError as error:
        raise DeviceError(f"{path}: {error.strerror}") from error
    if names:
        raise DeviceError(f"{path} is not empty: mounting there would hide {len(names)} entries")
    return path


def _resolved(target: str) -> str:
    """The absolute path as the kernel names it, without touching the directory itself."""
    directory, name = os.path.split(os.path.abspath(target))
    path = os.path.join(os.path.realpath(directory), name)
    if device.mounted_at(path) is not None:
        return path  # a dead mount would not answer whether it is a link
    return os.path.realpath(path)


def check_source(plan: Plan) -> list[int]:
    """Find out whether the prefix can be served; gives the sizes of some of its files.

    Raises:
        HotshardError: no server, no such origin, no prefix but an object, or the origin refuses.
    """
    from hotshard.mount import survey  # only here: the CSI driver makes mounts without looking
    from hotshard.mount.late import make_source

    source = make_source(plan)
    try:
        sizes = survey.sizes(source, plan.uri)
        if sizes is None:
            _refuse_object(source, plan.uri.rstrip("/"))
            sys.stderr.write(f"hotshard: warning: nothing lies below {plan.uri} (yet)\n")
        return sizes or []
    finally:
        source.close()


def _refuse_object(source: "Source", uri: str) -> None:
    try:
        source.stat(uri)
    except HotshardError:
        return
    raise InvalidRequest(
        f"{uri} is an object: mount the prefix it lies in, {uri.rpartition('/')[0]}/"
    )


def establish(draft: Plan, source: str) -> tuple[list[int], State, Plan]:
    """Mount as `source` (what /proc/mounts and fstab say), agree with the kernel, clone descriptors.

    Raises:
        DeviceError: refused; nothing is mounted then.
    """
    options = draft.options
    fd = device.open_device()
    device.mount(fd, source, draft.target, allow_other=options.allow_other)
    try:
        state = State.create()
        request = codec.parse(os.read(fd, 1 << 16))
        wanted = Wanted(options.mode == "passthrough", options.resend, options.mode == "no_open")
        try:
            agreement, payload = session.negotiate(request.body, wanted)
        except session.Unsupported as error:
            raise DeviceError(str(error)) from error
        state.set_init_reply(payload)
        os.write(fd, codec.reply_bytes(request.unique, payload))
        if options.mode == "no_open" and not agreement.no_open:
            raise DeviceError(_NO_OPEN)  # noqa: TRY301
        devices = [fd] + [device.clone(fd) for _ in range(options.threads - 1)]
        point = device.mounted_at(draft.target)
        number = point.device if point is not None else "0:0"
        device.set_read_ahead(number, options.read_ahead_kib)
    except BaseException:
        os.close(fd)  # fails whatever waits already
        with contextlib.suppress(OSError):
            device.unmount(draft.target, lazy=True)
        raise
    return devices, state, replace(draft, device=number)


def _detach(plan: Plan) -> None:
    """In the forked child: leave the terminal, and whatever our caller waits for."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    out = null
    if plan.options.log_file is not None:
        out = os.open(plan.options.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(out, 2)


def _become_keeper(devices: list[int], state: State, notify: int, plan: Plan) -> NoReturn:
    """Run the keeper's program in place of this process."""
    cwd = os.getcwd()
    os.chdir("/")  # keeps no other file system busy
    for fd in (*devices, state.fd, notify):
        os.set_inheritable(fd, True)  # noqa: FBT003
    numbers = [",".join(map(str, devices)), str(state.fd), str(notify)]
    command = [sys.executable, "-m", "hotshard.mount.keeper", *numbers, plan.to_json()]
    os.execve(sys.executable, command, _environment(cwd))  # noqa: S606


def _environment(cwd: str) -> dict[str, str]:
    """Ours, good in any directory: what is relative in PYTHONPATH was meant from here."""
    environment = dict(os.environ)
    if "PYTHONPATH" in environment:
        places = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(os.path.join(cwd, each) for each in places)
    return environment


def _await_ready(pid: int, notify: int, plan: Plan) -> None:
    try:
        readable = select.select([notify], [], [], READY_TIMEOUT_S)[0]
        if readable and os.read(notify, 64):
            return
    finally:
        os.close(notify)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        device.unmount(plan.target, lazy=True)
    log = plan.options.log_file
    hint = f"see {log}" if log else "mount it with --foreground, or with -o log_file=, to see why"
    raise DeviceError(f"{plan.target}: the mount did not come up; {hint}")


def _busy(path: str, number: str) -> str:
    found = device.holders(number)
    lines = [f"{path} is busy: files are open there"]
    lines += [f"  pid {pid} ({command}) holds {held}" for pid, command, held in found[:20]]
    if len(found) > 20:
        lines.append(f"  and {len(found) - 20} more")
    lines.append("close them, or detach the mount with --lazy")
    return "\n".join(lines)


def helper(argv: list[str]) -> int:
    """`mount.hotshard URI DIR [-sfnv] [-o OPTIONS]`, as mount(8) calls it; the exit code is mount(8)'s."""
    try:
        flags, words = getopt.gnu_getopt(argv[1:], "sfnvo:t:N:")
    except getopt.GetoptError:
        flags, words = [], []
    if len(words) != 2:
        sys.stderr.write("usage: mount.hotshard URI DIR [-sfnv] [-o OPTIONS]\n")
        return 1
    if ("-f", "") in flags:  # "fake": everything but the mount
        return 0
    text = ",".join(value for flag, value in flags if flag == "-o")
    try:
        mount(words[0], words[1], parse_options(text))
    except DeviceError as error:
        sys.stderr.write(f"mount.hotshard: {error}\n")
        return 32
    except HotshardError as error:
        sys.stderr.write(f"mount.hotshard: {explain(error, words[0])}\n")
        return 1 if isinstance(error, ConfigError | InvalidRequest) else 32
    except OSError as error:
        sys.stderr.write(f"mount.hotshard: {words[1]}: {error.strerror}\n")
        return 32
    return 0


def helper_main() -> None:
    """Entry point of /sbin/mount.hotshard."""
    sys.exit(helper(sys.argv))


def absence(error: ServerUnavailable) -> tuple[str, str]:
    """What is wrong and what to do about it, when there is no cache server for a mount."""
    what, _, remedy = str(error).partition("; ")
    return what, remedy or "start one with `hotshard serve`, or name one with -o address="


def explain(error: HotshardError, uri: str) -> str:
    """A refusal of the cache server in the words of somebody who wants to mount."""
    if isinstance(error, ServerUnavailable):
        return f"the cache server cannot be reached: {'; '.join(absence(error))}"
    if isinstance(error, NotFound):
        return f"{uri}: no such bucket or directory ({error})"
    return str(error)
