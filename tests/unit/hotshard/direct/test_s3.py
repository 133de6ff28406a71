"""S3 read without a server: a real S3 server, one that lies, and none."""

import random
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from hotshard.cli.s3_server import SeaweedS3
from hotshard.core.errors import NotFound, OriginUnavailable, PermissionDenied, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import parse
from hotshard.direct.origin import NotHere
from hotshard.direct.s3 import S3Objects
from support.faulty_http import Scripted, scripted
from support.s3_origin import CREDENTIALS


def test_a_version_is_read_while_it_is_there(bucket: tuple[Any, str]):
    boto, name = bucket
    boto.put_object(Bucket=name, Key="k", Body=b"0123456789")
    objects = S3Objects(5.0)
    info = objects.stat(parse(f"s3://{name}/k"))
    assert info.version == boto.head_object(Bucket=name, Key="k")["ETag"].strip('"')
    view = memoryview(bytearray(4))
    objects.read_into(info, 3, view)
    assert view.tobytes() == b"3456"
    boto.put_object(Bucket=name, Key="k", Body=b"other bytes")
    with pytest.raises(StaleObject):
        objects.read_into(info, 3, view)
    boto.delete_object(Bucket=name, Key="k")
    with pytest.raises(StaleObject):
        objects.read_into(info, 3, view)
    with pytest.raises(NotFound) as caught:
        objects.stat(parse(f"s3://{name}/k"))
    assert not isinstance(caught.value, NotHere)


@pytest.mark.parametrize("recursive", [True, False])
def test_pages_join_to_the_listing(bucket: tuple[Any, str], *, recursive: bool):
    boto, name = bucket
    keys = ["a/1", "a/2", "a/sub/3", "a/z", "ab", "c"]
    for key in keys:
        boto.put_object(Bucket=name, Key=key, Body=b"x")
    objects, found, token = S3Objects(5.0), [], ""
    while True:
        page = objects.page(parse(f"s3://{name}/a/"), token, 2, recursive=recursive)
        found += [info.uri for info in page.objects] + [fold.uri for fold in page.prefixes]
        token = page.next_token
        if not token:
            break
    below = ["a/1", "a/2", "a/sub/3" if recursive else "a/sub/", "a/z"]
    assert sorted(found) == [f"s3://{name}/{key}" for key in below]


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    for variable, value in CREDENTIALS.items():
        monkeypatch.setenv(variable, value)
    with scripted(random.Random(3).randbytes(1000)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        yield server


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(NotHere, match=r"hotshard\[direct\]"):
        S3Objects(1.0).stat(parse("s3://bucket/k"))


def test_wrong_credentials_are_a_refusal(s3: SeaweedS3, bucket: tuple[Any, str], monkeypatch: Any):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PermissionDenied, match="denied"):
        S3Objects(5.0).stat(parse(f"s3://{bucket[1]}/k"))


def test_no_endpoint_is_the_origins_absence_and_bounded(s3: SeaweedS3, monkeypatch: Any):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    info = ObjectInfo("s3://bucket/k", "v", 10, 0)
    with pytest.raises(OriginUnavailable):
        S3Objects(1.0).read_into(info, 0, memoryview(bytearray(4)))


def test_what_obstore_cannot_name_is_left_to_a_server(s3: SeaweedS3):
    with pytest.raises(NotHere, match="empty path segment"):
        S3Objects(1.0).stat(parse("s3://bucket/a//b"))


def test_a_server_that_ignores_if_match_is_found_out(liar: Scripted):
    info = ObjectInfo("s3://bucket/k", "another", 1000, 0)
    liar.extra["Last-Modified"] = "Tue, 14 Nov 2023 22:13:20 GMT"
    with pytest.raises(StaleObject):
        S3Objects(2.0).read_into(info, 0, memoryview(bytearray(4)))
    assert liar.requests[-1].headers["if-match"] == '"another"'
