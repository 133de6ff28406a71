"""Very many names: a directory of 120,000 here, of 1,000,000 with HOTSHARD_TEST_SCALE=1."""

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from hotshard.v1 import local_pb2 as pb
from hotshard.v1 import types_pb2
from support.fake_server import FakeServer, FakeStore
from support.mounts import FULL

COUNT = 1_000_000 if FULL else 120_000
PAGE = 1000
PREFIX = "s3://many/d/"


def described(number: int) -> types_pb2.ObjectInfo:
    return types_pb2.ObjectInfo(
        uri=f"{PREFIX}img-{number:08d}.jpg",
        version=f"{number:032x}",
        size_bytes=number,
        mtime_ns=1_700_000_000_000_000_000,
    )


class ManyNames(FakeServer):
    """A server whose one directory has COUNT objects, listed as S3 does, a thousand at a time."""

    def _fill(
        self, reply: pb.LocalReply, request: pb.LocalRequest, call: str, paths: list[Path]
    ) -> None:
        if call == "stat":
            reply.stat.CopyFrom(described(int(request.stat.uri[-12:-4])))
            return
        if call != "list" or request.list.prefix != PREFIX:
            super()._fill(reply, request, call, paths)
            return
        start = int(request.list.page_token or "0")
        stop = min(COUNT, start + (request.list.page_size or PAGE))
        reply.list.objects.extend(described(i) for i in range(start, stop))
        if stop < COUNT:
            reply.list.next_page_token = str(stop)


def memory(pid: int) -> dict[str, int]:
    """Bytes by kind: VmRSS, RssAnon, RssShmem (the manifest lies in shared memory)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {x.split(":")[0]: int(x.split()[1]) * 1024 for x in lines if x.startswith(("Vm", "Rss"))}


@pytest.mark.slow
def test_a_directory_of_very_many_files(mount, tmp_path):
    """SEMANTICS 11: an entry costs the process that serves a mount at most 300 bytes, beside the listing
    itself.
    """
    store = FakeStore(tmp_path)
    with ManyNames(store, tmp_path / "s") as server:
        mounted = mount(tmp_path, server="yes", uri=PREFIX, address=server.address, ttl_s=3600)
        reader = mounted.reader()
        before = memory(reader)
        started = time.monotonic()
        assert (mounted / "img-00000007.jpg").stat().st_size == 7  # does not wait for the listing
        first_s = time.monotonic() - started
        find = ["find", str(mounted.path), "-type", "f", "-size", "-1"]
        subprocess.run(find, check=True, timeout=400, capture_output=True)
        listed_s = time.monotonic() - started
        started = time.monotonic()
        script = f"find {mounted.path} -type f -printf '%f %s %i\\n' | sort"
        out = subprocess.run(
            script, shell=True, check=True, timeout=400, capture_output=True
        ).stdout
        found_s = time.monotonic() - started
        after = memory(reader)
    lines = out.decode().splitlines()
    assert len(lines) == COUNT
    for i in (0, 1, COUNT // 2, COUNT - 1):
        assert lines[i].startswith(f"img-{i:08d}.jpg {i} ")
    assert len({line.rpartition(" ")[2] for line in lines}) == COUNT
    bytes_each = (after["RssAnon"] - before["RssAnon"]) / COUNT
    print(
        f"\n{COUNT} entries: first name {first_s:.2f} s, listed and found {listed_s:.1f} s, find"
        f" again {COUNT / found_s:,.0f}/s; {bytes_each:.0f} B an entry, and"
        f" {(after['RssShmem'] - before['RssShmem']) / COUNT:.0f} B of manifest"
    )
    assert bytes_each <= 300
    assert first_s < 10


@pytest.mark.slow
def test_64_processes_of_64_threads(mount, tmp_path):
    """They all end, and what each read is right."""
    source = tmp_path / "source"
    source.mkdir()
    for i in range(64):
        (source / f"f{i}").write_bytes(bytes([i]) * (50_000 + i))
    mounted = mount(source, mode="cached", workers=16)
    pids = []
    for seed in range(64):
        pid = os.fork()
        if pid == 0:
            os._exit(_many_threads(str(mounted.path), seed))
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * 64


def _many_threads(root: str, seed: int) -> int:
    good: list[int] = []

    def read(number: int) -> None:
        for step in range(4):
            which = (seed + 7 * number + step) % 64
            assert os.stat(f"{root}/f{which}").st_size == 50_000 + which
            with open(f"{root}/f{which}", "rb") as file:
                assert file.read() == bytes([which]) * (50_000 + which)
        good.append(number)

    threading.stack_size(256 << 10)
    threads = [threading.Thread(target=read, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0 if len(good) == 64 else 1
