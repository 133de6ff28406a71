"""Files read without a server: the server's versions, and what cannot be seen is not called missing."""

import os
from pathlib import Path

import pytest

from cache_server.origins.posix import PosixOptions, PosixOrigin
from hotshard.core.errors import NotFound, OriginUnavailable, PermissionDenied, StaleObject
from hotshard.core.uri import parse
from hotshard.direct.origin import NotHere
from hotshard.direct.posix import PosixFiles


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tree" / "sub" / "f"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0123456789")
    path.with_name("other").touch()
    return path


async def test_a_file_has_the_version_the_server_gives_it(file: Path):
    origin = PosixOrigin(PosixOptions(f"file://{file.parent}/"))
    uri = f"file://{file}"
    assert PosixFiles().stat(parse(uri)) == await origin.stat(uri)
    await origin.close()


def test_a_file_that_changes_under_the_copy_is_stale(file: Path):
    files = PosixFiles()
    info = files.stat(parse(f"file://{file}"))
    view = memoryview(bytearray(4))
    files.read_into(info, 3, view)
    assert view.tobytes() == b"3456"
    with open(file, "r+b") as other:  # in place: the same inode
        other.write(b"x")
        os.utime(other.fileno(), ns=(1, 1))
    with pytest.raises(StaleObject):
        files.read_into(info, 3, view)
    file.unlink()
    with pytest.raises(StaleObject):
        files.read_into(info, 3, view)


def test_a_name_that_is_missing_in_a_tree_that_is_there(file: Path):
    for place in (file.parent / "no", file.parent.parent / "no" / "no"):
        with pytest.raises(NotFound) as caught:
            PosixFiles().stat(parse(f"file://{place}"))
        assert not isinstance(caught.value, NotHere)


@pytest.mark.parametrize("root", ["", "tree/"])
def test_a_tree_that_is_not_mounted_here_is_not_an_empty_one(tmp_path: Path, root: str):
    (tmp_path / "tree").mkdir()  # a mount point
    files = PosixFiles(f"{tmp_path}/{root}" if root else "/")
    with pytest.raises(NotHere, match="not visible"):
        files.stat(parse(f"file://{tmp_path}/tree/f"))
    with pytest.raises(NotHere, match="not visible"):
        files.page(parse(f"file://{tmp_path}/tree/"), "", 0, recursive=False)
    with pytest.raises(NotHere):
        PosixFiles().stat(parse("file:///nowhere/at/all"))


def test_below_a_root_links_out_of_it_are_refused(file: Path, tmp_path: Path):
    (tmp_path / "secret").write_bytes(b"s")
    (file.parent / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(PermissionDenied):
        PosixFiles(f"{file.parent}/").stat(parse(f"file://{file.parent}/link"))


def test_what_the_file_system_says_besides(file: Path, monkeypatch: pytest.MonkeyPatch):
    files = PosixFiles()
    info = files.stat(parse(f"file://{file}"))

    def broken(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(OriginUnavailable, match="Input/output"):
        files.read_into(info, 0, memoryview(bytearray(4)))
