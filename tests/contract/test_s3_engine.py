"""The byte engine against servers that misbehave: right bytes, or a typed error."""

import asyncio

import pytest

from cache_server.origins.origin import Fetched, Interrupted, Target
from hotshard.cli.ports import free_ports
from hotshard.core.checksum import Algorithm, checksum
from hotshard.core.errors import (
    InvalidRequest,
    NotFound,
    OriginUnavailable,
    PermissionDenied,
    StaleObject,
)
from support import faulty_http as faulty
from support.faulty_http import Scripted
from support.s3_origin import fetch, opened, patience_with, want_of

ONCE = {
    "reset in the body": faulty.reset_mid_body,
    "a short body": faulty.short_body,
    "shorter than asked": faulty.shorter_than_asked,
    "another range": faulty.other_range,
    "another ETag": faulty.other_etag,
    "chunked": faulty.chunked,
    "garbage": faulty.garbage,
    "endless headers": faulty.endless_headers,
    "closed without an answer": faulty.close_at_once,
    "silence": faulty.silent,
    "a drip": faulty.drip,
    "more than announced": faulty.long_body,
    "500": faulty.answer(500, "InternalError"),
    "503": faulty.answer(503, "SlowDown"),
    "429": faulty.answer(429),
}


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("offset", [0, 200_000])
async def test_one_fault_and_then_the_right_bytes(
    server: Scripted, target: Target, name: str, offset: int
) -> None:
    server.script.extend([faulty.right, ONCE[name]])
    async with opened(server.url, **patience_with(ONCE[name])) as (origin, outcomes):
        await fetch(origin, want_of(server, 10, 20), target)  # the fault meets a kept connection
        want = want_of(server, offset)
        fetched, got = await fetch(origin, want, target)
        assert got == server.body[offset:]
        assert fetched.checksum == checksum(Algorithm.XXH3_64, got)
        assert outcomes[-1] == f"GET ok {want.length}"


# -- servers that misbehave always: a typed error ---

ALWAYS = {
    "reset in the body": (faulty.reset_mid_body, OriginUnavailable),
    "another range": (faulty.other_range, OriginUnavailable),
    "another ETag": (faulty.other_etag, StaleObject),
    "garbage": (faulty.garbage, OriginUnavailable),
    "closed without an answer": (faulty.close_at_once, OriginUnavailable),
    "silence": (faulty.silent, OriginUnavailable),
    "a drip": (faulty.drip, OriginUnavailable),
    "500": (faulty.answer(500, "InternalError"), OriginUnavailable),
    "503": (faulty.answer(503, "SlowDown"), OriginUnavailable),
    "403": (faulty.answer(403, "AccessDenied"), PermissionDenied),
    "404": (faulty.answer(404, "NoSuchKey"), StaleObject),
    "412": (faulty.answer(412, "PreconditionFailed"), StaleObject),
    "416": (faulty.answer(416, "InvalidRange"), StaleObject),
    "400": (faulty.answer(400, "InvalidArgument"), InvalidRequest),
    "expired": (faulty.answer(400, "ExpiredToken"), PermissionDenied),
    "KMS": (faulty.answer(400, "KMS.DisabledException"), PermissionDenied),
    "no bucket": (faulty.answer(404, "NoSuchBucket"), NotFound),
    "501": (faulty.answer(501, "NotImplemented"), OriginUnavailable),
}


@pytest.mark.parametrize("name", ALWAYS)
async def test_a_fault_that_stays_is_a_typed_error(
    server: Scripted, target: Target, name: str
) -> None:
    behaviour, error = ALWAYS[name]
    server.script.extend([behaviour] * 20)
    async with opened(server.url, attempts=2, **patience_with(behaviour)) as (origin, outcomes):
        with pytest.raises(error) as caught:
            await fetch(origin, want_of(server, 0, 200_000), target)
        assert caught.value.uri == "s3://bucket/key"
        assert len(outcomes) == (2 if outcomes[0] == "GET retry 0" else 1)
        server.script.clear()
        assert (await fetch(origin, want_of(server, 5, 10), target))[1] == server.body[5:15]


async def test_nobody_listens(server: Scripted, target: Target) -> None:
    (port,) = free_ports(1)
    async with opened(f"http://127.0.0.1:{port}", attempts=2) as (origin, _):
        with pytest.raises(OriginUnavailable, match="2 times"):
            await fetch(origin, want_of(server), target)
        with pytest.raises(OriginUnavailable):
            await origin.stat("s3://bucket/key")
        with pytest.raises(OriginUnavailable):
            await origin.list_page("s3://bucket/", recursive=True, token="", page_size=10)


async def test_retry_after_is_waited_for(server: Scripted, target: Target) -> None:
    server.script.append(faulty.answer(503, "SlowDown", Retry_After="1"))
    async with opened(server.url) as (origin, outcomes):
        began = asyncio.get_running_loop().time()
        await fetch(origin, want_of(server), target)
        assert asyncio.get_running_loop().time() - began >= 1.0
        assert outcomes == ["GET retry 0", f"GET ok {len(server.body)}"]


async def test_who_asks_to_come_back_in_an_hour_is_unavailable_now(
    server: Scripted, target: Target
) -> None:
    server.script.append(faulty.answer(503, "SlowDown", Retry_After="3600"))
    async with opened(server.url) as (origin, _):
        with pytest.raises(OriginUnavailable):
            await fetch(origin, want_of(server), target)


async def test_a_kept_connection_that_was_closed_is_no_failure(
    server: Scripted, target: Target
) -> None:
    server.script.extend([faulty.right_then_close, faulty.right])
    async with opened(server.url) as (origin, outcomes):
        for _ in range(2):
            await fetch(origin, want_of(server), target)
        assert outcomes == [f"GET ok {len(server.body)}"] * 2
        assert server.connections == 2


async def test_connections_are_kept(server: Scripted, target: Target) -> None:
    async with opened(server.url) as (origin, _):
        for _ in range(5):
            await fetch(origin, want_of(server), target)
            await origin.stat("s3://bucket/key")
    assert server.connections == 1


async def test_a_begun_fetch_ends_within_the_time_it_is_given(
    server: Scripted, target: Target
) -> None:
    """Though its connection was used by those that had more time; the rest of its tries is whole."""
    landed: asyncio.Future[Fetched | Exception] = asyncio.get_running_loop().create_future()
    async with opened(server.url, read_timeout_s=60.0) as (origin, outcomes):
        await origin.stat("s3://bucket/key")
        await fetch(origin, want_of(server), target)
        server.script.append(faulty.silent)
        async with asyncio.timeout(90):
            assert origin.begin_fetch(want_of(server), target, landed.set_result, 0.2)
            interrupted = await landed
            assert isinstance(interrupted, Interrupted)
            fetched = await interrupted.go_on()
        assert fetched.checksum == checksum(Algorithm.XXH3_64, server.body)
        assert outcomes[-2:] == ["GET retry 0", f"GET ok {len(server.body)}"]
