"""`hotshard mount`, `mount -t hotshard`, /etc/fstab: from the command line to files that can be read."""

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotshard.cli import app, exits
from hotshard.cli.cache_process import CacheProcess
from hotshard.mount import command, device
from support.waiting import until

HELPER = Path("/sbin/mount.hotshard")


@pytest.fixture(scope="module")
def origin(tmp_path_factory) -> Path:
    root: Path = tmp_path_factory.mktemp("origin")
    (root / "d").mkdir()
    (root / "d" / "file").write_text("content")
    return root


@pytest.fixture(scope="module")
def node(origin, tmp_path_factory) -> Iterator[CacheProcess]:
    settings = {"origins": [{"prefix": f"file://{origin}/"}], "free_space_floor": "64MiB"}
    with CacheProcess(str(tmp_path_factory.mktemp("node")), settings) as process:
        yield process


@pytest.fixture
def target(tmp_path) -> Iterator[Path]:
    """A mount point; nothing is left mounted there, and nobody left serving it."""
    path = tmp_path / "target"
    path.mkdir()
    yield path
    while (point := device.mounted_at(str(path))) is not None:
        keeper = command.keeper_of(point.device)
        device.abort(point.device)  # while the number is surely this mount's
        with contextlib.suppress(OSError):
            device.unmount(str(path), lazy=True)
        if keeper is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGTERM)


@pytest.fixture
def cli(node, capfdbinary):
    """Runs a command line in this process; exit code and stderr."""

    def run(*arguments: object) -> tuple[int, str]:
        capfdbinary.readouterr()
        code = app.run(["--address", node.address, *map(str, arguments)])
        return code, capfdbinary.readouterr().err.decode()

    return run


def test_mount_read_upgrade_umount(cli, origin, target):
    """SEMANTICS 11: programs read a mount with the system calls they use for files."""
    assert cli("mount", f"file://{origin}/d", target) == (exits.OK, "")
    assert (target / "file").read_text() == "content"
    assert cli("mount-upgrade", target) == (exits.OK, "")
    assert (target / "file").read_text() == "content"
    with open(target / "file"):
        code, error = cli("umount", target)
        assert code == exits.FAILED
        assert f"pid {os.getpid()} (" in error
        assert f"holds {target}/file" in error
        assert "--lazy" in error
    assert cli("umount", target) == (exits.OK, "")
    assert os.listdir(target) == []


def test_a_lazy_umount(cli, origin, target):
    assert cli("mount", f"file://{origin}/", target, "-o", "mode=cached", "-o", "ttl_s=5")[0] == 0
    with open(target / "d" / "file") as file:
        assert cli("umount", "--lazy", target) == (exits.OK, "")
        assert file.read() == "content"


def test_what_goes_wrong_is_one_line_that_says_what_to_do(cli, origin, target, tmp_path):
    def refused(code: int, *arguments: object) -> str:
        got, error = cli("mount", *arguments)
        assert got == code, error
        assert error.startswith("hotshard: ")
        assert isinstance(error, str)
        assert error.count("\n") == 1 + ("mistake" in error)  # mistakes have a line each
        return error

    uri = f"file://{origin}/"
    assert "create it first" in refused(exits.FAILED, uri, tmp_path / "nothing")
    assert "is no directory" in refused(exits.FAILED, uri, origin / "d" / "file")
    assert "not empty" in refused(exits.FAILED, uri, origin)
    assert "origin" in refused(exits.PERMISSION, "s3://unknown/x", target)
    assert "no such option" in refused(exits.USAGE, uri, target, "-o", "speed=9")
    none = f"address=unix://{tmp_path}/none"
    absent = refused(exits.UNAVAILABLE, uri, target, "-o", none)
    assert "is it running?" in absent
    assert "-o address=" in absent
    assert "--address" not in absent
    assert "is not an address" in refused(exits.USAGE, "bucket/x", target)
    an_object = refused(exits.USAGE, f"file://{origin}/d/file", target)
    assert f"mount the prefix it lies in, file://{origin}/d/" in an_object
    port = refused(exits.USAGE, uri, target, "-o", "address=127.0.0.1:7070")
    assert "-o address=unix:///path" in port
    assert device.mounted_at(str(target)) is None
    assert cli("mount", uri, target)[0] == exits.OK
    assert "is busy" in refused(exits.FAILED, uri, target)
    code, error = cli("umount", tmp_path)
    assert code == exits.FAILED
    assert "nothing is mounted there" in error
    code, error = cli("mount-upgrade", "/proc")
    assert code == exits.FAILED
    assert "(proc) is" in error


def test_without_any_socket_a_mount_is_not_offered_a_port(target, monkeypatch, capfd):
    monkeypatch.delenv("HOTSHARD_ADDRESS", raising=False)
    monkeypatch.setattr("hotshard.options.NODE_SOCKET", str(target / "none"))
    assert app.run(["mount", "file:///d/", str(target)]) == exits.UNAVAILABLE
    error = capfd.readouterr().err
    assert "-o address=" in error
    assert "host:port" not in error


def test_without_privilege_it_says_so(node, origin, tmp_path):
    """As another user: /dev/fuse may be opened, mount(2) may not be called."""
    target = Path("/tmp") / f"hotshard-test-{os.getpid()}"
    target.mkdir(mode=0o755)
    script = (
        "import os, sys; from hotshard.cli import app; from hotshard.mount import command;"
        "command.check_source = lambda plan: None; command.device.open_device();"
        "os.environ['HOTSHARD_ADDRESS'] = '/nobody.sock'; os.setuid(65534);"
        f"sys.exit(app.run(['mount', 'file:///x/', {str(target)!r}]))"
    )
    try:
        run = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30
        )
    finally:
        target.rmdir()
    assert "run as root" in run.stderr
    assert run.returncode == exits.PERMISSION


NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
MASKS = {
    "missing": ("mount -t tmpfs none /dev", "modprobe fuse"),
    "another": ("mount --bind /dev/null /dev/fuse", "mknod /dev/fuse c 10 229"),
    "refused": ("ulimit -v unlimited", "run as root"),
}


@pytest.mark.parametrize("case", MASKS)
def test_a_container_without_the_device_or_the_privilege(node, origin, target, case):
    """/dev/fuse masked in a mount namespace, or CAP_SYS_ADMIN dropped: it says so before all else."""
    missing = [name for name in ("unshare", "setpriv") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (util-linux)")
    masked, said = MASKS[case]
    drop = "setpriv --bounding-set=-sys_admin" if case == "refused" else ""
    script = (
        f"{masked} && exec {drop} {sys.executable} -m hotshard.cli --address {node.address}"
        f" mount file://{origin}/ {target}"
    )
    run = subprocess.run(
        [*NAMESPACE, script], capture_output=True, text=True, check=False, timeout=60
    )
    assert said in run.stderr
    assert run.stderr.count("\n") == 1
    assert run.returncode == (exits.PERMISSION if case == "refused" else exits.FAILED)
    assert device.mounted_at(str(target)) is None


def test_stopped_before_it_serves_it_leaves_no_dead_mount(node, origin, target):
    process = subprocess.Popen(
        [sys.executable, "-m", "hotshard.cli", "--address", node.address, "mount",
         f"file://{origin}/", target, "--foreground"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while device.mounted_at(str(target)) is None:  # at once: it has no handler of signals yet
        assert process.poll() is None
    process.terminate()
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert device.mounted_at(str(target)) is None


@pytest.mark.parametrize("stop", ["SIGTERM", "umount", "SIGTERM while busy"])
def test_in_the_foreground_under_systemd(node, origin, target, tmp_path, stop):
    """Type=notify: READY=1 when files can be read; the process systemd started is the one it stops."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(20)
        process = subprocess.Popen(
            [sys.executable, "-m", "hotshard.cli", "--address", node.address, "mount",
             f"file://{origin}/", target, "--foreground"],
            env={**os.environ, "NOTIFY_SOCKET": notify.getsockname()},
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert notify.recv(100) == b"READY=1"
            assert (target / "d" / "file").read_text() == "content"
            point = device.mounted_at(str(target))
            assert point is not None
            assert command.keeper_of(point.device) == process.pid
            if stop == "umount":
                command.umount(str(target))
            elif stop == "SIGTERM":
                process.terminate()
            else:
                with open(target / "d" / "file") as file:
                    process.terminate()
                    until(lambda: device.mounted_at(str(target)) is None, "it to be detached")
                    assert file.read() == "content"
            _, log = process.communicate(timeout=20)
            assert process.returncode == 0
            assert "unmounted" in log
            assert (f" {os.getpid()})" in log) == (stop == "SIGTERM while busy")
        finally:
            process.kill()
            process.wait()
    assert device.mounted_at(str(target)) is None


@pytest.fixture
def helper(tmp_path) -> Iterator[None]:
    """/sbin/mount.hotshard, for as long as the test runs."""
    if HELPER.exists() or not shutil.which("mount") or not os.access("/sbin", os.W_OK):
        pytest.skip(f"needs mount(8), a /sbin that can be written to, and no {HELPER} in it")
    code = "from hotshard.mount.command import helper_main; helper_main()"
    script = tmp_path / "mount.hotshard"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    script.chmod(0o755)
    HELPER.symlink_to(script)
    yield
    HELPER.unlink()


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.usefixtures("helper")
def test_mount_8(node, origin, target, tmp_path):
    options = f"address={node.address},ttl_s=300,log_file={tmp_path}/log"
    made = run("mount", "-t", "hotshard", f"file://{origin}", target, "-o", options)
    assert made.returncode == 0, made.stderr
    assert (target / "d" / "file").read_text() == "content"
    again = run("mount", "-t", "hotshard", f"file://{origin}", target, "-o", options)
    assert again.returncode == 32
    assert "is busy" in again.stderr
    assert run("umount", target).returncode == 0
    unknown = run("mount", "-t", "hotshard", "s3://unknown/", target, "-o", options)
    assert unknown.returncode == 32
    assert "mount.hotshard:" in unknown.stderr


@pytest.mark.usefixtures("helper")
def test_a_line_of_fstab(node, origin, target, tmp_path):
    fstab = tmp_path / "fstab"
    options = f"ro,_netdev,nofail,immutable,address={node.address},log_file={tmp_path}/log"
    fstab.write_text(f"file://{origin}/d {target} hotshard {options} 0 0\n")
    for _ in range(2):  # mount -a leaves alone what is mounted
        made = run("mount", "--all", "--fstab", fstab)
        assert made.returncode == 0, made.stderr
        assert (target / "file").read_text() == "content"
    assert run("umount", target).returncode == 0
    assert run("mount", "--fstab", fstab, target).returncode == 0
    assert (target / "file").read_text() == "content"


def test_the_keeper_is_gone_after_umount(cli, origin, target):
    assert cli("mount", f"file://{origin}/", target)[0] == 0
    point = device.mounted_at(str(target))
    assert point is not None
    keeper = command.keeper_of(point.device)
    assert keeper is not None
    pidfd = os.pidfd_open(keeper)
    assert cli("umount", target)[0] == 0
    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
