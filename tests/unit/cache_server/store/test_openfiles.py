"""The open files."""

import os

import pytest

from cache_server.store.openfiles import OpenFiles
from hotshard.openfile import OpenFile


def new_file() -> OpenFile:
    return OpenFile(os.open("/dev/null", os.O_RDONLY))


def test_least_recently_used_files_are_closed():
    files = OpenFiles(2)
    first, second = new_file(), new_file()
    fds = {b"a": first.fd, b"b": second.fd}
    files.put(b"a", first)
    files.put(b"b", second)
    del first, second
    assert files.get(b"a") is not None
    files.put(b"c", new_file())
    assert (b"a" in files, b"b" in files, len(files)) == (True, False, 2)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fds[b"b"])


def test_a_file_in_use_outlives_its_place():
    files = OpenFiles(1)
    files.put(b"a", new_file())
    held = files.get(b"a")
    assert held is not None
    files.put(b"b", new_file())
    assert files.get(b"a") is None
    os.fstat(held.fd)


def test_pop_and_halve():
    files = OpenFiles(0)
    for number in range(5):
        files.put(bytes([number]), new_file())
    assert files.pop(b"\0") is not None
    assert files.pop(b"\0") is None
    files.halve()
    assert (len(files), b"\4" in files) == (2, True)
