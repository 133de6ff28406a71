"""Directories, attributes and refusals on a real mount."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "deep.txt").write_text("deep")
    (root / "a" / "ünï ✓").write_text("unicode")
    (root / "a" / ("n" * 255)).write_text("long")
    (root / "top").write_bytes(b"x" * 5000)
    os.utime(root / "top", ns=(10**18, 1_234_567_890_123_456_789))
    return root


def test_names_sizes_and_times(mount, source):
    mounted = mount(source)
    assert sorted(os.listdir(mounted.path)) == ["a", "top"]
    assert sorted(os.listdir(mounted / "a")) == sorted(["b", "n" * 255, "ünï ✓"])
    assert (mounted / "a" / "b" / "deep.txt").read_text() == "deep"
    assert (mounted / "a" / "ünï ✓").read_text() == "unicode"
    found = os.stat(mounted / "top")
    assert found.st_size == 5000
    assert found.st_mtime_ns == 1_234_567_890_123_456_789
    assert stat.S_IMODE(found.st_mode) == 0o444
    assert stat.S_IMODE(os.stat(mounted / "a").st_mode) == 0o555
    with pytest.raises(FileNotFoundError):
        os.stat(mounted / "nothing")
    with pytest.raises(OSError, match="too long"):
        os.stat(mounted / ("n" * 256))


def test_inode_numbers_are_the_same_after_a_remount(mount, source):
    first = mount(source)
    numbers = {p.name: p.stat().st_ino for p in first.path.rglob("*")}
    first.close()
    second = mount(source)
    assert {p.name: p.stat().st_ino for p in second.path.rglob("*")} == numbers
    assert len(set(numbers.values())) == len(numbers)


def test_what_would_write_is_refused_at_once(mount, source):
    """SEMANTICS 11: whatever would change a file or a name on a mount fails with EROFS."""
    mounted = mount(source)
    attempts = [
        lambda: os.open(mounted / "top", os.O_RDWR),
        lambda: os.open(mounted / "new", os.O_WRONLY | os.O_CREAT),
        lambda: os.unlink(mounted / "top"),
        lambda: os.rename(mounted / "top", mounted / "other"),
        lambda: os.mkdir(mounted / "dir"),
        lambda: os.rmdir(mounted / "a"),
        lambda: os.chmod(mounted / "top", 0o777),
        lambda: os.truncate(mounted / "top", 0),
        lambda: os.symlink("x", mounted / "link"),
        lambda: os.link(mounted / "top", mounted / "hard"),
        lambda: os.utime(mounted / "top"),
        lambda: os.setxattr(mounted / "top", "user.x", b"1"),
    ]
    for attempt in attempts:
        with pytest.raises(OSError) as caught:
            attempt()
        assert caught.value.errno == errno.EROFS
    assert (source / "top").stat().st_size == 5000


def test_extended_attributes_tell_the_truth(mount, source):
    mounted = mount(source)
    names = os.listxattr(mounted / "top")
    assert "user.hotshard.version" in names
    assert os.getxattr(mounted / "top", "user.hotshard.uri") == b"file:///data/top"
    (mounted / "top").read_bytes()
    assert os.getxattr(mounted / "top", "user.hotshard.cached") == b"yes"
    with pytest.raises(OSError) as caught:
        os.getxattr(mounted / "top", "user.other")
    assert caught.value.errno == errno.ENODATA


def test_without_attributes_the_kernel_asks_once_and_never_again(mount, source):
    mounted = mount(source, xattrs="no")
    for name in ("security.capability", "user.hotshard.uri"):
        with pytest.raises(OSError, match="not supported"):
            os.getxattr(mounted / "top", name)
    assert mounted.metrics()['hotshard_mount_requests_total{opcode="getxattr"}'] == 1
    subprocess.run(["ls", "-l", str(mounted.path)], check=True, stdout=subprocess.DEVNULL)
    assert mounted.metrics()['hotshard_mount_requests_total{opcode="getxattr"}'] == 1


def test_statfs(mount, source):
    mounted = mount(source)
    os.listdir(mounted.path)
    found = os.statvfs(mounted.path)
    assert found.f_namemax == 255
    assert found.f_bavail == 0
    assert found.f_files == 2


def test_a_new_name_is_seen_after_the_time_to_live(mount, source):
    mounted = mount(source, ttl_s=0)
    assert "late" not in os.listdir(mounted.path)
    (source / "late").write_text("late")
    assert "late" in os.listdir(mounted.path)
    assert (mounted / "late").read_text() == "late"
    (source / "late").unlink()
    assert not (mounted / "late").exists()


def test_a_changed_file_is_stale_for_the_old_handle_and_new_for_a_new_open(mount, source):
    mounted = mount(source, ttl_s=3600, mode="cached", files_max=16)
    old = os.open(mounted / "top", os.O_RDONLY)
    assert os.pread(old, 10, 0) == b"x" * 10
    (source / "top").unlink()
    (source / "top").write_bytes(b"y" * 6000)
    with open(mounted / "top", "rb") as same:  # within lease and time to live: the old version
        assert same.read() == b"x" * 5000
    os.close(old)


def test_an_open_of_a_version_that_is_gone_finds_the_new_one(mount, source):
    mounted = mount(source, ttl_s=3600)
    assert os.stat(mounted / "top").st_size == 5000
    (source / "top").write_bytes(b"y" * 6000)
    assert (mounted / "top").read_bytes() == b"y" * 6000
    assert os.stat(mounted / "top").st_size == 6000


def test_find_and_du_agree_with_the_origin(mount, source):
    mounted = mount(source)

    def run(root: Path, command: str) -> str:
        return subprocess.run(
            command, shell=True, cwd=root, check=True, timeout=30, capture_output=True, text=True
        ).stdout

    find = "find . -type f -printf '%P %s %T@\\n' | sort"
    assert run(mounted.path, find) == run(source, find)
    du = "du --apparent-size -b -a . | grep -v '/a$' | grep -v '\\.$' | grep -v /b$ | sort"
    assert run(mounted.path, du) == run(source, du)


def test_who_reads_all_names_first_looks_none_up(mount, tmp_path):
    """As find, ls and du do, in large directories too."""
    source = tmp_path / "many"
    (source / "d").mkdir(parents=True)
    for number in range(3000):
        (source / "d" / f"file-{number:05}").touch()
    mounted = mount(source)
    names = os.listdir(mounted / "d")
    for name in names:
        assert os.stat(mounted / "d" / name).st_size == 0
    lookups = mounted.metrics()['hotshard_mount_requests_total{opcode="lookup"}']
    assert lookups < 30
