"""Bytes through a mount are the bytes of the origin, however they are read, in every mode."""

import hashlib
import mmap
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MODES = {"passthrough": "passthrough", "cached": "cached", "no_open": None}

READ_SCRIPT = """
import mmap, os, random, sys
ours, theirs, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
rnd = random.Random(seed)
names = sorted(os.listdir(theirs))
for _ in range(150):
    name = rnd.choice(names)
    with open(f"{ours}/{name}", "rb") as a, open(f"{theirs}/{name}", "rb") as b:
        size = os.fstat(b.fileno()).st_size
        assert os.fstat(a.fileno()).st_size == size
        offset, length = rnd.randrange(size + 10), rnd.choice([1, 4096, 70_000, 1 << 20, 3 << 20])
        way = rnd.randrange(3)
        want = os.pread(b.fileno(), length, offset)
        if way == 0 or not want:
            got = os.pread(a.fileno(), length, offset)
        elif way == 1:
            with mmap.mmap(a.fileno(), 0, prot=mmap.PROT_READ) as m:
                got = m[offset:offset + length]
        else:
            out = os.memfd_create("x")
            left, at = length, offset
            while left and (n := os.sendfile(out, a.fileno(), at, left)):
                left -= n
                at += n
            got = os.pread(out, length, 0)
            os.close(out)
        assert got == want, (name, offset, length, way)
print("same")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    rnd = random.Random(1)
    for i, size in enumerate([1, 4095, 4096, 100_000, 1 << 20, (5 << 20) + 17, 33_000_001]):
        (root / f"file{i}").write_bytes(rnd.randbytes(size))
    return root


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_reads_the_same_bytes(mount, tree, mode):
    """SEMANTICS 11: every byte read through a mount equals the origin's byte, in every mode."""
    mounted = mount(tree, mode=mode)
    for path in tree.iterdir():
        assert digest(mounted / path.name) == digest(path)
    metrics = mounted.metrics()
    opens = {k: v for k, v in metrics.items() if k.startswith("hotshard_mount_opens_total")}
    kind = MODES[mode]
    assert list(opens) == ([f'hotshard_mount_opens_total{{mode="{kind}"}}'] if kind else [])
    reads = metrics.get("hotshard_mount_read_bytes_total", 0)
    assert (reads == 0) if mode == "passthrough" else (reads > 0)


@pytest.mark.parametrize("mode", MODES)
def test_sixteen_processes_read_at_random_by_pread_mmap_and_sendfile(mount, tree, mode):
    mounted = mount(tree, mode=mode)
    command = [sys.executable, "-c", READ_SCRIPT, str(mounted.path), str(tree)]
    running = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for seed in range(16)
    ]
    outputs = [process.communicate(timeout=80)[0] for process in running]
    assert outputs == [b"same\n"] * 16


@pytest.mark.parametrize("mode", MODES)
def test_programs_copy_it(mount, tree, tmp_path, mode):
    mounted = mount(tree, mode=mode)
    copied = tmp_path / "copied"
    subprocess.run(["cp", "-r", str(mounted.path), str(copied)], check=True, timeout=60)
    untarred = tmp_path / "untarred"
    untarred.mkdir()
    tar = f"tar -C {mounted.path} -cf - . | tar -C {untarred} -xf -"
    subprocess.run(tar, shell=True, check=True, timeout=60)
    for path in tree.iterdir():
        assert digest(copied / path.name) == digest(path) == digest(untarred / path.name)


@pytest.mark.parametrize("mode", MODES)
def test_dd_with_o_direct(mount, tree, tmp_path, mode):
    mounted = mount(tree, mode=mode)
    out = tmp_path / "out"
    command = ["dd", f"if={mounted / 'file6'}", f"of={out}", "bs=1M", "iflag=direct", "status=none"]
    subprocess.run(command, check=True, timeout=60)
    assert digest(out) == digest(tree / "file6")


def test_without_passthrough_in_the_kernel_auto_is_cached(mount, tree):
    """Kernel 6.1 offers no passthrough; asking for `cached` at INIT is the same thing."""
    mounted = mount(tree, mode="cached", resend="no")
    assert digest(mounted / "file5") == digest(tree / "file5")


def test_an_open_mapping_and_a_new_open_do_not_mix_modes(mount, tree):
    """The kernel answers EIO when cached and passthrough opens of one inode meet."""
    mounted = mount(tree)
    first, second = open(mounted / "file4", "rb"), open(mounted / "file4", "rb")  # noqa: SIM115
    with second, mmap.mmap(first.fileno(), 0, prot=mmap.PROT_READ) as mapping:
        first.close()
        assert mapping[:10] == second.read(10)
        with open(mounted / "file4", "rb") as third:
            assert third.read(10) == mapping[:10]


def test_an_empty_file(mount, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "empty").touch()
    mounted = mount(source)
    assert (mounted / "empty").read_bytes() == b""


@pytest.mark.skipif(not shutil.which("fio"), reason="fio is not installed")
def test_fio_verifies(mount, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    base = ["fio", "--name=v", "--filename_format=v.$jobnum", "--size=16m", "--numjobs=4", "--bs=64k",
            "--verify=crc32c", "--group_reporting"]  # fmt: skip
    write = [*base, "--rw=write", "--do_verify=0", f"--directory={source}"]
    subprocess.run(write, check=True, timeout=60, capture_output=True, cwd=tmp_path)
    mounted = mount(source)
    read = [*base, "--rw=randread", f"--directory={mounted.path}", "--verify_only=0", "--readonly"]
    subprocess.run(read, check=True, timeout=60, capture_output=True, cwd=tmp_path)
