"""A read that has to ask the source, while other reads of the same file do so too."""

import os
import threading
import time
from types import SimpleNamespace
from typing import Any, cast

from hotshard.calls import Opened, Piece
from hotshard.core.objects import ObjectInfo
from hotshard.handles import PARTIAL_PIECES_MAX
from hotshard.mount.answers import Task
from hotshard.mount.codec import Request
from hotshard.mount.config import MountOptions, Plan
from hotshard.mount.contents import Content, Contents
from hotshard.mount.files import Files
from hotshard.mount.metrics import Tally
from hotshard.mount.session import Agreement
from hotshard.openfile import OpenFile

PIECE = 1000
BODY = os.urandom(20 * PIECE)
INFO = ObjectInfo("s3://b/k", "v", len(BODY), 0)


def piece_at(offset: int) -> Opened:
    """A piece that is not sealed, as while an object is being fetched, or read from the origin."""
    start = offset // PIECE * PIECE
    fd = os.memfd_create("piece")
    os.write(fd, BODY[start : start + PIECE])
    piece = Piece(start, start + PIECE, OpenFile(fd), -start, sealed=False)
    return Opened(INFO, [piece], 0.0)


class Crowded(Contents):
    """Between a read and its answer, others learn as many pieces as are kept, far away."""

    def learn(self, node: int, info: ObjectInfo, opened: Opened, now_s: float) -> Content:
        content = super().learn(node, info, opened, now_s)
        start = opened.pieces[0].start
        for i in range(PARTIAL_PIECES_MAX + 1):
            content = super().learn(
                node, info, piece_at((start + (i + 8) * PIECE) % INFO.size), now_s
            )
        return content


def files(contents: Contents) -> Files:
    parts = SimpleNamespace(
        plan=Plan("s3://b/", "/mnt", "0:1", 0, None, MountOptions()),
        directories=SimpleNamespace(lock=threading.RLock()),
        handles=SimpleNamespace(kept=list),
        contents=contents,
        source=SimpleNamespace(open=lambda _info, offset, _length: piece_at(offset)),
        info=lambda _node: INFO,
    )
    return Files(cast("Any", parts), -1, Agreement(minor=40, flags=0, no_open=False))


def read(contents: Contents, offset: int, size: int) -> bytes:
    body = SimpleNamespace(offset=offset, size=size)
    task = Task(memoryview(bytearray(1 << 20)), Tally(), time.monotonic() + 60)
    request = cast("Request", SimpleNamespace(node=2, body=body))
    return bytes(files(contents)._read_later(request, task))


def test_a_read_across_pieces_and_to_the_end():
    assert read(Contents(100), 10, 50) == BODY[10:60]
    assert read(Contents(100), 900, 2500) == BODY[900:3400]
    assert read(Contents(100), len(BODY) - 10, 4096) == BODY[-10:]
    assert read(Contents(100), len(BODY) + 10, 4096) == b""


def test_a_read_has_its_bytes_though_others_crowd_its_pieces_out():
    for offset in (0, 900, 5_500):
        assert read(Crowded(100), offset, 1500) == BODY[offset : offset + 1500]
