"""File objects beside Python's own over a plain file of the same bytes."""

import io
import os
import pickle
import random
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hotshard
from support.fake_server import FakeServer, FakeStore, Range

URI = "s3://bucket/object"
SIZE = 5000


def random_pieces(seed: int) -> Any:
    """Reveals what was asked and a random bit around it, in random cuts."""
    dice = random.Random(seed)

    def reveal(shard: Range, asked: Range) -> list[Range]:
        start = dice.randint(shard[0], asked[0])
        stop = dice.randint(asked[1], shard[1])
        if dice.random() < 0.1:
            return [shard]
        inner = range(start + 1, stop)
        cuts = sorted(dice.sample(inner, min(dice.randint(0, 3), len(inner))))
        edges = [start, *cuts, stop]
        return list(pairwise(edges))

    return reveal


@pytest.fixture(scope="module")
def hypothetical() -> Iterator[tuple[FakeStore, hotshard.Client]]:
    """One server for all examples."""
    with tempfile.TemporaryDirectory() as directory:
        store = FakeStore(Path(directory))
        with (
            FakeServer(store, Path(directory) / "sock") as server,
            hotshard.connect(server.address) as client,
        ):
            server.lease_ms = 0
            yield store, client


offsets = st.integers(0, SIZE + 100)
steps = st.one_of(
    st.tuples(st.just("read"), st.one_of(st.none(), st.integers(-1, 2 * SIZE))),
    st.tuples(st.just("read1"), st.integers(0, 3000)),
    st.tuples(st.just("readinto"), st.integers(0, 3000)),
    st.tuples(st.just("readline"), st.integers(-1, 500)),
    st.tuples(st.just("peek"), st.just(0)),
    st.tuples(st.just("tell"), st.just(0)),
    st.tuples(st.just("seek"), offsets),
    st.tuples(st.just("seek_from_here"), st.integers(-SIZE, SIZE)),
    st.tuples(st.just("seek_from_end"), st.integers(-SIZE - 10, 10)),
)


def readinto(file: Any, length: int) -> tuple[int, bytes]:
    buffer = bytearray(length)
    return file.readinto(buffer), bytes(buffer)


STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "readinto": readinto,
    "seek_from_here": lambda file, offset: file.seek(offset, os.SEEK_CUR),
    "seek_from_end": lambda file, offset: file.seek(offset, os.SEEK_END),
    "peek": lambda file, _: bool(file.peek(1)),
    "tell": lambda file, _: file.tell(),
    "read": lambda file, count: file.read(count),
    "readline": lambda file, count: file.readline(count),
    "seek": lambda file, offset: file.seek(offset),
}


def play(file: Any, step: tuple[str, Any]) -> Any:
    """One step on one file: its result, or that it was refused."""
    name, argument = step
    try:
        return STEPS[name](file, argument)
    except (OSError, ValueError):
        return "refused"


@dataclass(frozen=True)
class Layout:
    """How the object lies on the server."""

    size: int
    shard_bytes: int
    padding: int
    seed: int


layouts = st.builds(
    Layout,
    size=st.sampled_from([0, 1, 999, SIZE]),
    shard_bytes=st.sampled_from([700, 1000, 1 << 20]),
    padding=st.sampled_from([0, 13]),
    seed=st.integers(0, 1000),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(plan=st.lists(steps, max_size=25), buffering=st.sampled_from([0, 2, 100, -1]), at=layouts)
def test_reads_and_seeks_as_pythons_own_files_do(
    hypothetical: tuple[FakeStore, hotshard.Client],
    plan: list[tuple[str, Any]],
    buffering: int,
    at: Layout,
):
    store, client = hypothetical
    data = bytes(random.Random(at.seed).choices(b"abc\n", k=at.size))
    store.reveal = random_pieces(at.seed) if at.seed % 3 else None
    store.put(URI, data, shard_bytes=at.shard_bytes, padding=at.padding)
    with tempfile.NamedTemporaryFile(buffering=0) as plain:
        plain.write(data)
        with (
            io.FileIO(plain.name) if buffering == 0 else open(plain.name, "rb") as theirs,
            client.open(URI, buffering=buffering) as ours,
        ):
            for step in plan:
                if step[0] == "read1":
                    if buffering:
                        assert_read1(ours, theirs, step[1])
                elif step[0] != "peek" or buffering:
                    assert play(ours, step) == play(theirs, step), step


def assert_read1(ours: Any, theirs: Any, count: int) -> None:
    """read1 may return less; what it returns must be right, and not nothing."""
    at = theirs.tell()
    got = ours.read1(count)
    theirs.seek(at)
    assert got == theirs.read(len(got))
    if count and not got:
        assert theirs.read(1) == b""
        theirs.seek(at)
    assert ours.tell() == theirs.tell()


def test_straight_reads(client: hotshard.Client, store: FakeStore):
    data = os.urandom(10_000)
    store.put(URI, data)
    with client.open(URI, buffering=0) as file:
        assert isinstance(file, hotshard.CachedFile)
        for _ in range(2):
            buffer = bytearray(4000)
            assert file.readinto_at(buffer, 100) == 4000
            assert buffer == data[100:4100]
            assert file.readinto_at(buffer, 9000) == 1000
            assert file.readinto_at(buffer, 10_000) == 0
            assert file.readinto_at(buffer, 20_000) == 0
            assert file.read_at(9990, 50) == data[9990:]
            assert file.read_at(50) == data[50:]
            assert file.read_at(20_000, 5) == b""
            with pytest.raises(hotshard.InvalidRequest):
                file.readinto_at(buffer, -1)
            with pytest.raises(hotshard.InvalidRequest):
                file.read_at(-1, 1)
            with pytest.raises(hotshard.InvalidRequest):
                file.read_at(0, -1)
            with pytest.raises(TypeError):
                file.readinto_at(b"read-only", 0)
        assert file.tell() == 0, "no position moved"


def test_once_the_object_is_at_hand_no_call_is_made(
    client: hotshard.Client, server: FakeServer, store: FakeStore
):
    store.put(URI, os.urandom(100_000))
    with client.open(URI, buffering=0) as file:
        file.read(10)
        calls = server.calls.total()
        server.kill()
        file.readall()
        for offset in range(0, 100_000, 1000):
            file.readinto_at(bytearray(4096), offset)
        assert server.calls.total() == calls


def test_what_it_says_of_itself(client: hotshard.Client, store: FakeStore):
    info = store.put(URI, b"hello")
    with client.open(URI) as buffered:
        assert isinstance(buffered, io.BufferedReader)
        assert (buffered.name, buffered.mode) == (URI, "rb")
        assert buffered.readable()
        assert buffered.seekable()
        assert not buffered.writable()
        assert not buffered.isatty()
        raw = buffered.raw
        assert isinstance(raw, hotshard.CachedFile)
        assert (raw.size, raw.version, raw.info) == (5, info.version, info)
        with pytest.raises(io.UnsupportedOperation):
            buffered.fileno()
        with pytest.raises(io.UnsupportedOperation):
            buffered.write(b"x")
        with pytest.raises(io.UnsupportedOperation):
            raw.truncate(0)
    assert buffered.closed
    assert raw.closed


def test_a_closed_file(client: hotshard.Client, store: FakeStore):
    store.put(URI, b"hello")
    file = client.open(URI, buffering=0)
    file.readinto_at(bytearray(1), 0)
    file.close()
    file.close()
    for call in (
        file.read,
        file.readall,
        file.tell,
        file.readable,
        file.seekable,
        lambda: file.seek(0),
        lambda: file.readinto(bytearray(1)),
        lambda: file.readinto_at(bytearray(1), 0),
        lambda: file.read_at(0, 1),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_bad_seeks(client: hotshard.Client, store: FakeStore):
    store.put(URI, b"hello")
    with client.open(URI, buffering=0) as file:
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
        for offset, whence in ((-1, 0), (-1, 1), (-6, 2)):
            with pytest.raises(ValueError, match="negative"):
                file.seek(offset, whence)
        assert file.tell() == 0


def test_stale_only_when_other_bytes_are_needed(client: hotshard.Client, store: FakeStore):
    """The part that is at hand can be read for ever; the rest fails with ESTALE."""
    store.put(URI, b"a" * 2000, shard_bytes=1000)
    with client.open(URI, buffering=0) as file:
        assert file.read(1000) == b"a" * 1000
        store.put(URI, b"b" * 2000, shard_bytes=1000)
        assert file.read_at(0, 1000) == b"a" * 1000
        with pytest.raises(hotshard.StaleObject):
            file.read(1)
    assert client.read(URI) in (b"a" * 2000, b"b" * 2000)


def test_tar_zip_pickle_and_lines(client: hotshard.Client, store: FakeStore, tmp_path: Path):
    contents = {f"dir/{i}.txt": os.urandom(3000) for i in range(50)}
    with tarfile.open(tmp_path / "t", "w") as tar, zipfile.ZipFile(tmp_path / "z", "w") as zipped:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            zipped.writestr(name, data)
    for name in "tz":
        store.put(f"s3://bucket/{name}", (tmp_path / name).read_bytes(), shard_bytes=10_000)
    store.put("s3://bucket/p", pickle.dumps(contents))
    store.put("s3://bucket/l", b"one\ntwo\nthree")
    with client.open("s3://bucket/t") as file, tarfile.open(fileobj=file) as tar:
        for name, data in contents.items():
            member_file = tar.extractfile(name)
            assert member_file is not None
            assert member_file.read() == data
    with client.open("s3://bucket/t") as file, tarfile.open(fileobj=file, mode="r|") as tar:
        assert [member.name for member in tar] == list(contents)
    with client.open("s3://bucket/z") as file, zipfile.ZipFile(file) as zipped:
        assert {name: zipped.read(name) for name in zipped.namelist()} == contents
    with client.open("s3://bucket/p") as file:
        assert pickle.load(file) == contents
    with client.open("s3://bucket/l") as file:
        assert list(io.TextIOWrapper(file)) == ["one\n", "two\n", "three"]


def test_a_map_outlives_everything(client: hotshard.Client, server: FakeServer, store: FakeStore):
    data = os.urandom(100_000)
    store.put(URI, data, padding=11)
    view = client.map(URI)
    part = client.map(URI, 70_001, 5)
    client.close()
    server.kill()
    for path in store.objects[URI].paths:
        path.unlink()
    assert view == data
    assert part == data[70_001:70_006]
    assert view.readonly


def test_a_map_of_parts_that_are_one_file_in_truth(client: hotshard.Client, store: FakeStore):
    """A partial shard comes in pieces at first, and as one when asked for as one."""
    data = os.urandom(10_000)
    store.put(URI, data)
    whole = [False]

    def reveal(shard: Range, asked: Range) -> list[Range]:
        if asked == shard and whole[0]:
            return [shard]
        whole[0] = True
        return [(asked[0], 5000), (5000, asked[1])] if asked[0] < 5000 else [asked]

    store.reveal = reveal
    assert client.map(URI) == data
