"""Mounting and unmounting: what goes wrong is said clearly, before anything is mounted."""

import os
import socket
import subprocess
import sys

import pytest

from hotshard.core.errors import ConfigError, InvalidRequest, ServerUnavailable
from hotshard.mount import command, device
from hotshard.mount.command import check_target, helper, umount, upgrade
from hotshard.mount.config import MountOptions, parse_options
from hotshard.mount.device import DeviceError


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    root.mkdir()
    (root / "file").write_text("content")
    return root


def test_mount_points_that_cannot_be(tmp_path, source, mount):
    with pytest.raises(DeviceError, match="does not exist: create it first"):
        check_target(str(tmp_path / "nothing"))
    with pytest.raises(DeviceError, match="is no directory"):
        check_target(str(source / "file"))
    with pytest.raises(DeviceError, match="not empty"):
        check_target(str(source))
    mounted = mount(source)
    with pytest.raises(DeviceError, match="busy: file:///data/ is mounted there"):
        check_target(str(mounted.path))


def test_no_device(monkeypatch):
    def missing(*_args):
        raise FileNotFoundError(2, "No such file or directory")

    def refused(*_args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "open", missing)
    with pytest.raises(DeviceError, match="modprobe fuse"):
        device.open_device()
    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(DeviceError, match="run as root"):
        device.open_device()


def test_not_permitted(tmp_path):
    """mount(2) without CAP_SYS_ADMIN, in a process of its own."""
    target = tmp_path / "target"
    target.mkdir()
    script = (
        "import os\n"
        "from hotshard.mount import device\n"
        "fd = device.open_device()\n"
        "os.setuid(65534)\n"
        f"device.mount(fd, 'x', {str(target)!r}, allow_other=False)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "run as root" in run.stderr
    assert run.returncode == 1


def test_a_server_that_is_not_there(tmp_path):
    options = MountOptions(address=f"unix://{tmp_path}/none.sock")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(ServerUnavailable, match="is it running"):
        command.mount("s3://bucket/prefix", str(target), options)
    assert device.mounted_at(str(target)) is None


def test_addresses_that_are_none(tmp_path):
    with pytest.raises(InvalidRequest, match="is not an address"):
        command.mount("bucket/prefix", str(tmp_path))


def test_open_files_are_named_when_unmounting(mount, source):
    mounted = mount(source)
    with open(mounted / "file"):
        with pytest.raises(DeviceError) as caught:
            umount(str(mounted.path))
        assert f"pid {os.getpid()} (" in str(caught.value)
        assert str(mounted / "file") in str(caught.value)
    umount(str(mounted.path))
    assert device.mounted_at(str(mounted.path)) is None
    with pytest.raises(DeviceError, match="is no hotshard mount"):
        umount(str(mounted.path))


def test_a_lazy_unmount_serves_what_is_open(mount, source):
    mounted = mount(source, mode="cached")
    with open(mounted / "file") as file:
        umount(str(mounted.path), lazy=True)
        assert file.read() == "content"
        assert not (mounted / "file").exists()


def test_the_processes_end_with_the_mount(mount, source):
    mounted = mount(source)
    reader = mounted.reader()
    umount(str(mounted.path))
    os.waitpid(mounted.keeper, 0)
    assert not os.path.exists(f"/proc/{reader}/fd/0")


def test_terminating_the_keeper_unmounts(mount, source):
    mounted = mount(source)
    os.kill(mounted.keeper, 15)
    os.waitpid(mounted.keeper, 0)
    assert device.mounted_at(str(mounted.path)) is None


def test_upgrade_finds_the_keeper(mount, source):
    mounted = mount(source)
    assert command.keeper_of(mounted.device) == mounted.keeper
    before = mounted.reader()
    upgrade(str(mounted.path))
    pidfd = os.pidfd_open(before)
    import select

    assert select.select([pidfd], [], [], 20)[0]
    os.close(pidfd)
    assert (mounted / "file").read_text() == "content"
    with pytest.raises(DeviceError, match=r"is no hotshard mount: proc \(proc\) is"):
        upgrade("/proc")


def test_systemd_is_told(tmp_path, source):
    """In the foreground, under a supervisor that waits for READY=1."""
    target = tmp_path / "target"
    target.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(20)
        script = (
            "from hotshard.mount.command import mount\n"
            f"mount('file:///data', {str(target)!r}, foreground=True, directory={str(source)!r})\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, "NOTIFY_SOCKET": notify.getsockname()},
        )
        try:
            assert notify.recv(100) == b"READY=1"
            assert (target / "file").read_text() == "content"
            process.terminate()
            assert process.wait(timeout=10) == 0
        finally:
            process.kill()
            process.wait()
        assert device.mounted_at(str(target)) is None


def test_mount_8_helper(tmp_path, source, capsys):
    assert helper(["mount.hotshard", "s3://x/"]) == 1
    assert "usage" in capsys.readouterr().err
    none = f"address={tmp_path}/none"
    assert (
        helper(["mount.hotshard", "s3://bucket/x", str(tmp_path / "nothing"), "-o", f"rw,{none}"])
        == 32
    )
    assert "create it first" in capsys.readouterr().err
    target = tmp_path / "target"
    target.mkdir()
    assert helper(["mount.hotshard", "s3://bucket/x", str(target), "-o", none]) == 32
    assert "cannot be reached" in capsys.readouterr().err


def test_a_mistake_in_the_options(tmp_path):
    with pytest.raises(ConfigError):
        parse_options("mode=faster")
    assert helper(["mount.hotshard", "s3://b/x", str(tmp_path), "-o", "mode=faster"]) == 1
