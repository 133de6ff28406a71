"""The POSIX origin where it differs: changes during a copy, permissions, trees that hang."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cache_server.origins import posix
from cache_server.origins.origin import Target, Want
from cache_server.origins.posix import PosixOptions, PosixOrigin
from hotshard.core.errors import OriginUnavailable, PermissionDenied, StaleObject


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tree" / "file"
    path.parent.mkdir()
    path.write_bytes(bytes(3 << 20))
    return path


@pytest.fixture
async def origin(file: Path) -> AsyncIterator[PosixOrigin]:
    made = PosixOrigin(PosixOptions(f"file://{file.parent}/", concurrency=2, timeout_s=60.0))
    yield made
    await made.close()


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(os.memfd_create("target"), 0)


async def test_a_change_during_the_copy_is_stale(
    origin: PosixOrigin, file: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two pieces the file is written in place: same inode, same size."""
    info = await origin.stat(f"file://{file}")
    real = os.preadv
    calls = 0

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            with open(file, "r+b") as changed:
                changed.write(b"new")
            os.utime(file, ns=(info.mtime_ns + 1, info.mtime_ns + 1))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(StaleObject):
        await origin.fetch(Want(info, 0, info.size), target)
    assert calls == 3


async def test_a_file_cut_off_during_the_copy_is_stale(
    origin: PosixOrigin, file: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = await origin.stat(f"file://{file}")
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        os.truncate(file, 1 << 20)
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(StaleObject):
        await origin.fetch(Want(info, 0, info.size), target)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.EIO, OriginUnavailable),
        (errno.ESTALE, OriginUnavailable),
        (errno.EACCES, PermissionDenied),
        (errno.ENOENT, StaleObject),
    ],
)
async def test_what_the_file_system_says_is_translated(
    origin: PosixOrigin,
    file: Path,
    target: Target,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    error: type[Exception],
) -> None:
    info = await origin.stat(f"file://{file}")

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(error):
        await origin.fetch(Want(info, 0, info.size), target)


async def test_a_tree_that_hangs_is_unavailable_and_writes_no_more(
    origin: PosixOrigin, file: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = await origin.stat(f"file://{file}")
    hang = threading.Event()
    done = threading.Event()
    real = os.preadv

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        hang.wait(30)
        try:
            return real(fd, buffers, offset)
        finally:
            done.set()

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(posix, "_GRACE_S", 0.05)
    hasty = PosixOrigin(PosixOptions(f"file://{file.parent}/", concurrency=2, timeout_s=0.3))
    with pytest.raises(OriginUnavailable, match="within"):
        await hasty.fetch(Want(info, 0, info.size), target)
    hang.set()
    await asyncio.to_thread(done.wait, 30)
    await hasty.close()
    for thread in hasty._pool._threads:
        await asyncio.to_thread(thread.join, 30)
    assert os.fstat(target.fd).st_size == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read(origin: PosixOrigin, file: Path, target: Target) -> None:
    info = await origin.stat(f"file://{file}")
    file.chmod(0)
    with pytest.raises(PermissionDenied, match="uid"):
        await origin.fetch(Want(info, 0, info.size), target)


async def test_listings_that_are_given_up_are_forgotten(origin: PosixOrigin, file: Path) -> None:
    for number in range(20):
        (file.parent / f"d{number:02}").mkdir()
        for name in "abc":
            (file.parent / f"d{number:02}" / name).touch()
    for number in range(20):
        prefix = f"file://{file.parent}/d{number:02}/"
        await origin.list_page(prefix, recursive=True, token="", page_size=1)
    assert len(origin._pages._cursors) <= 4
