"""Fixtures of the tests of origins."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache_server.origins.origin import Target
from support.faulty_http import Scripted, scripted
from support.s3_origin import CREDENTIALS


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def server(credentials: None) -> Iterator[Scripted]:
    with scripted(random.Random(3).randbytes(250_000)) as state:
        yield state


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield Target(fd, 0)
    os.close(fd)
