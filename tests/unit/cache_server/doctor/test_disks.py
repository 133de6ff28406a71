"""What a directory lies on."""

from pathlib import Path

import pytest

from cache_server.doctor.disks import Mount, _medium, mount_of
from hotshard.core.findings import Verdict


@pytest.mark.parametrize(
    ("mount", "verdict"),
    [
        (Mount("/mnt/nvme0", "ext4", "/dev/nvme1n1", "1:1"), Verdict.OK),
        (Mount("/fsx", "lustre", "fs-1@tcp:/x", "0:9"), Verdict.WARN),
        (Mount("/data", "nfs4", "server:/x", "0:9"), Verdict.WARN),
        (Mount("/s3", "fuse.mount-s3", "bucket", "0:9"), Verdict.WARN),
        (Mount("/x", "overlay", "overlay", "0:9"), Verdict.WARN),
        (Mount("/", "xfs", "/dev/nvme0n1p1", "259:1"), Verdict.WARN),
        (Mount("/run", "tmpfs", "tmpfs", "0:9"), Verdict.WARN),
    ],
)
def test_local_disks_of_their_own_are_good(mount, verdict):
    found = _medium("cache dir", mount)
    assert found.verdict is verdict
    assert (verdict is Verdict.OK) == (not found.remedy)


def test_the_innermost_mount_counts():
    assert mount_of("/proc/self/status").kind == "proc"
    assert mount_of("/").point == "/"
    assert Path(mount_of("/dev/shm").point) in {Path("/dev/shm"), Path("/dev"), Path("/")}
