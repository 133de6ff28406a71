"""A description and the bytes in one request: a real S3 server, servers that misbehave, and the fake."""

import base64
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from cache_server.origins.origin import FirstOrigin, Origin, Target
from cache_server.origins.s3 import S3Options, S3Origin
from hotshard.cli.s3_server import SeaweedS3
from hotshard.core.checksum import Algorithm, checksum
from hotshard.core.errors import NotFound, OriginUnavailable, PermissionDenied
from support import faulty_http as faulty
from support import s3 as support_s3
from support.faulty_http import Scripted, scripted
from support.memory_origin import MemoryOrigin
from support.s3_origin import opened

BODY = random.Random(5).randbytes(600_000)
KEY = "s3://bucket/key"


patient = partial(opened, read_timeout_s=20.0, connect_timeout_s=20.0)
"""An origin that waits for a busy machine."""


@dataclass
class World:
    origin: Origin
    first: FirstOrigin
    prefix: str
    put: Callable[[str, bytes], object]


@pytest.fixture(scope="module")
def shared(s3: SeaweedS3) -> tuple[Any, str]:
    boto = support_s3.client(s3)
    return boto, support_s3.new_bucket(boto)  # which takes SeaweedFS half a second


@pytest.fixture(params=["s3", "memory"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "memory":
        memory = MemoryOrigin()
        yield World(memory, memory, memory.prefix, memory.put)
        return
    boto, bucket = request.getfixturevalue("shared")
    prefix = f"s3://{bucket}/"
    origin = S3Origin(S3Options(prefix, addressing="path"))

    def put(key: str, body: bytes) -> None:
        boto.put_object(Bucket=bucket, Key=key, Body=body)

    await origin.start()
    yield World(origin, origin, prefix, put)
    await origin.close()


def content(target: Target) -> bytes:
    with open(f"/proc/self/fd/{target.fd}", "rb") as file:
        return file.read()


@pytest.mark.parametrize("size", [0, 1, len(BODY)])
async def test_it_is_described_as_stat_does_and_all_of_it_is_written(
    world: World, target: Target, size: int
) -> None:
    world.put("dir/ü name", BODY[:size])
    found = await world.first.fetch_first(f"{world.prefix}dir/ü name", target, len(BODY))
    assert found.info == await world.origin.stat(f"{world.prefix}dir/ü name")
    assert found.info.size == size
    assert found.fetched is not None
    assert content(target) == BODY[:size]
    assert found.fetched.checksum == checksum(found.fetched.algorithm, BODY[:size])


async def test_what_is_too_large_is_described_and_not_written(world: World, target: Target) -> None:
    world.put("large", BODY)
    for _ in range(3):
        found = await world.first.fetch_first(f"{world.prefix}large", target, len(BODY) - 1)
        assert found.info == await world.origin.stat(f"{world.prefix}large")
        assert found.fetched is None
        assert content(target) == b""


async def test_what_is_not_there_is_not_found(world: World, target: Target) -> None:
    with pytest.raises(NotFound):
        await world.first.fetch_first(f"{world.prefix}missing", target, 100)
    assert content(target) == b""


async def test_a_target_that_cannot_be_written_is_an_error_of_its_own(
    world: World, target: Target
) -> None:
    world.put("some", BODY)
    with open(f"/proc/self/fd/{target.fd}", "rb") as read_only, pytest.raises(OSError) as caught:
        await world.first.fetch_first(
            f"{world.prefix}some", Target(read_only.fileno(), 0), len(BODY)
        )
    assert type(caught.value) is OSError


async def test_the_checksum_of_the_upload_comes_along(
    s3: SeaweedS3, shared: tuple[Any, str], target: Target
) -> None:
    boto, name = shared
    boto.put_object(Bucket=name, Key="summed", Body=BODY, ChecksumAlgorithm="CRC32C")
    async with patient(s3.endpoint_url, prefix=f"s3://{name}/") as (origin, _):
        found = await origin.fetch_first(f"s3://{name}/summed", target, len(BODY))
    assert found.fetched is not None
    assert found.fetched.algorithm is Algorithm.CRC32C
    assert found.fetched.whole is not None
    assert found.fetched.whole.value == found.fetched.checksum == checksum(Algorithm.CRC32C, BODY)


async def test_a_bucket_that_says_no_says_so(s3: SeaweedS3, target: Target) -> None:
    prefix = "s3://no-such-bucket-at-all/"
    async with patient(s3.endpoint_url, prefix=prefix) as (origin, _):
        with pytest.raises((NotFound, PermissionDenied)):
            await origin.fetch_first(f"{prefix}key", target, 100)


PASSING = {
    "reset in the body": faulty.reset_mid_body,
    "a short body": faulty.short_body,
    "chunked": faulty.chunked,
    "garbage": faulty.garbage,
    "a redirect": faulty.answer(301, "PermanentRedirect"),
    "400": faulty.answer(400, "InvalidArgument"),
    "500": faulty.answer(500, "InternalError"),
    "503": faulty.answer(503, "SlowDown"),
}


@pytest.mark.parametrize("name", PASSING)
async def test_after_a_failure_that_may_pass_it_is_described_as_stat_does(
    server: Scripted, target: Target, name: str
) -> None:
    async with patient(server.url) as (origin, outcomes):
        await origin.fetch_first(KEY, target, len(server.body))
        server.script.append(PASSING[name])
        found = await origin.fetch_first(KEY, target, len(server.body))
        assert (found.info.version, found.info.size) == (server.etag, len(server.body))
        if found.fetched is None:
            assert outcomes == [f"GET ok {len(server.body)}", "GET retry 0", "HEAD ok 0"]
        else:
            assert content(target) == server.body
        again = await origin.fetch_first(KEY, target, len(server.body))
        assert again.fetched is not None
        assert content(target) == server.body


async def test_bytes_that_do_not_match_their_checksum_are_not_given(
    credentials: None, target: Target
) -> None:
    body = BODY[:500]
    sum_ = checksum(Algorithm.CRC32C, body).to_bytes(4, "big")
    extra = {"x-amz-checksum-crc32c": base64.b64encode(sum_).decode()}
    with scripted(body, extra=extra) as server:
        server.script.append(faulty.flipped_bit)
        async with patient(server.url) as (origin, outcomes):
            found = await origin.fetch_first(KEY, target, 500)
            assert found.fetched is None
            assert found.info.size == 500
            assert outcomes == ["GET retry 0", "HEAD ok 0"]


STAYING = {
    "403": (faulty.answer(403, "AccessDenied"), PermissionDenied),
    "404": (faulty.answer(404, "NoSuchKey"), NotFound),
    "KMS": (faulty.answer(403, "KMS.DisabledException"), PermissionDenied),
    "503": (faulty.answer(503, "SlowDown"), OriginUnavailable),
}


@pytest.mark.parametrize("name", STAYING)
async def test_a_failure_that_stays_is_that_of_stat(
    server: Scripted, target: Target, name: str
) -> None:
    behaviour, error = STAYING[name]
    server.script.extend([behaviour] * 20)
    async with patient(server.url, attempts=2) as (origin, outcomes):
        with pytest.raises(error) as caught:
            await origin.fetch_first(KEY, target, len(server.body))
        assert caught.value.uri == KEY
        tries = ["GET retry 0", "HEAD retry 0"] if error is OriginUnavailable else outcomes[:1]
        assert outcomes == tries  # the first one counts


async def test_the_requester_pays_for_it_and_no_version_is_asked_for(
    server: Scripted, target: Target
) -> None:
    async with patient(server.url, requester_pays=True) as (origin, _):
        await origin.fetch_first(KEY, target, len(server.body))
    (seen,) = server.requests
    assert seen.method == "GET"
    assert seen.headers["x-amz-request-payer"] == "requester"
    assert seen.headers["x-amz-checksum-mode"] == "ENABLED"
    assert not {"range", "if-match"} & seen.headers.keys()
