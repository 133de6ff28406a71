"""hotshard as an fsspec file system."""

import io
import pickle
import subprocess
import sys
from collections.abc import Iterator

import fsspec
import pytest

import hotshard
from hotshard.fsspec import HotshardFileSystem, S3FileSystem
from support.fake_server import FakeServer, FakeStore


@pytest.fixture
def fs(server: FakeServer, store: FakeStore) -> Iterator[HotshardFileSystem]:
    store.put("s3://bucket/a", b"0123456789")
    for name in ("d/1", "d/2", "d/e/3"):
        store.put(f"s3://bucket/{name}", name.encode())
    store.put("file:///fsx/x", b"lustre")
    fs = HotshardFileSystem(server.address, skip_instance_cache=True)
    yield fs
    fs.client.close()


def test_the_protocol_is_known(server: FakeServer, fs: HotshardFileSystem):
    assert fsspec.get_filesystem_class("hotshard") is HotshardFileSystem
    with fsspec.open("hotshard://s3/bucket/a", address=server.address) as file:
        assert file.read() == b"0123456789"
    again = fsspec.filesystem("hotshard", address=server.address)
    assert again.cat("s3://bucket/a") == b"0123456789"
    again.client.close()
    HotshardFileSystem.clear_instance_cache()


def test_paths(fs: HotshardFileSystem):
    for path in ("s3/bucket/a", "s3://bucket/a", "hotshard://s3/bucket/a"):
        assert fs.uri(path) == "s3://bucket/a"
        assert fs.cat_file(path) == b"0123456789"
    for path in ("file/fsx/x", "file:///fsx/x", "hotshard://file/fsx/x"):
        assert fs.uri(path) == "file:///fsx/x"
        assert fs.cat_file(path) == b"lustre"
    assert fs.path("file:///fsx/x") == "file/fsx/x"


def test_the_names_of_s3fs(server: FakeServer, fs: HotshardFileSystem):
    s3 = S3FileSystem(server.address, skip_instance_cache=True)
    assert s3.ls("bucket/d", detail=False) == ["bucket/d/1", "bucket/d/2", "bucket/d/e"]
    assert s3.cat_file("s3://bucket/a") == s3.cat_file("bucket/a") == b"0123456789"
    s3.client.close()


def test_info(fs: HotshardFileSystem):
    info = fs.info("s3/bucket/a")
    assert (info["name"], info["size"], info["type"]) == ("s3/bucket/a", 10, "file")
    assert fs.info("s3/bucket/d") == {"name": "s3/bucket/d", "size": 0, "type": "directory"}
    assert fs.info("s3/bucket")["type"] == "directory"
    assert fs.isdir("s3/bucket/d")
    assert fs.isfile("s3/bucket/a")
    assert not fs.exists("s3/bucket/missing")
    with pytest.raises(FileNotFoundError):
        fs.info("s3/bucket/missing")
    assert fs.modified("s3/bucket/a").year == 2023
    assert fs.created("s3/bucket/a") == fs.modified("s3/bucket/a")


def test_an_unreachable_origin_is_not_a_missing_file(fs: HotshardFileSystem, server: FakeServer):
    server.refusals.append(hotshard.OriginUnavailable("down"))
    with pytest.raises(hotshard.OriginUnavailable):
        fs.info("s3/bucket/a")


def test_ls_and_find(fs: HotshardFileSystem):
    assert fs.ls("s3/bucket", detail=False) == ["s3/bucket/a", "s3/bucket/d"]
    assert [entry["type"] for entry in fs.ls("s3/bucket/d")] == ["file", "file", "directory"]
    assert fs.ls("s3/bucket/a", detail=False) == ["s3/bucket/a"]
    with pytest.raises(FileNotFoundError):
        fs.ls("s3/bucket/none")
    everything = ["s3/bucket/d/1", "s3/bucket/d/2", "s3/bucket/d/e/3"]
    assert fs.find("s3/bucket/d") == everything
    assert list(fs.find("s3/bucket/d", detail=True)) == everything
    assert fs.find("s3/bucket/a") == ["s3/bucket/a"]
    assert fs.find("s3/bucket/d", maxdepth=1) == everything[:2]
    assert fs.glob("s3/bucket/d/*") == ["s3/bucket/d/1", "s3/bucket/d/2", "s3/bucket/d/e"]
    assert [names for _, _, names in fs.walk("s3/bucket/d")] == [["1", "2"], ["3"]]


def test_ranges(fs: HotshardFileSystem):
    assert fs.cat_file("s3/bucket/a", 2, 5) == b"234"
    assert fs.cat_file("s3/bucket/a", -3) == b"789"
    assert fs.cat_file("s3/bucket/a", 2, -2) == b"234567"
    assert fs.cat_file("s3/bucket/a", 5, 2) == b""
    paths = ["s3/bucket/a", "s3/bucket/missing", "s3/bucket/a"]
    first, missing, last = fs.cat_ranges(paths, [0, 0, 8], [2, 1, None])
    assert (first, last) == (b"01", b"89")
    assert isinstance(missing, FileNotFoundError)
    assert fs.cat_ranges(paths[:1] * 2, 1, 3) == [b"12", b"12"]
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges(paths, 0, 1, on_error="raise")
    assert fs.cat_ranges(paths[:1] * 2, [0, 4], [2, 6], max_gap=5) == [b"01", b"45"]


def test_files(fs: HotshardFileSystem):
    with fs.open("s3/bucket/a") as file:
        assert isinstance(file, io.BufferedReader)
        assert file.read(3) == b"012"
    with fs.open("s3/bucket/a", "r") as text:
        assert text.read() == "0123456789"


def test_what_would_change_something_is_refused_as_on_a_mount(fs: HotshardFileSystem, tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    for change in (
        lambda: fs.open("s3/bucket/a", "wb"),
        lambda: fs.mkdir("s3/bucket/new"),
        lambda: fs.makedirs("s3/bucket/new", exist_ok=True),
        lambda: fs.rmdir("s3/bucket/d"),
        lambda: fs.rm("s3/bucket/d", recursive=True),
        lambda: fs.mv("s3/bucket/a", "s3/bucket/b"),
        lambda: fs.cp("s3/bucket/a", "s3/bucket/b"),
        lambda: fs.touch("s3/bucket/a"),
        lambda: fs.pipe("s3/bucket/a", b"x"),
        lambda: fs.put(str(tmp_path / "f"), "s3/bucket/f"),
        lambda: fs.write_text("s3/bucket/a", "x"),
    ):
        with pytest.raises(OSError, match="Read-only file system"):
            change()


def test_a_path_without_an_origin(fs: HotshardFileSystem):
    for path in ("", "s3", "bucket/a", "hotshard://"):
        with pytest.raises(hotshard.InvalidRequest, match="names no origin: use s3/bucket/key"):
            fs.ls(path)


def test_pickling(fs: HotshardFileSystem):
    copy = pickle.loads(pickle.dumps(fs))
    assert copy.cat_file("s3/bucket/a") == b"0123456789"
    copy.client.close()


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("fsspec", r"pip install 'hotshard\[fsspec\]'"),
        ("torch", r"pip install 'hotshard\[torch\]'"),
    ],
)
def test_without_the_extra_the_error_says_what_to_do(module: str, hint: str):
    program = f"import sys; sys.modules[{module!r}] = None; import hotshard.{module}"
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "ImportError" in done.stderr
    assert hint.replace("\\", "") in done.stderr
