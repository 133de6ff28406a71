"""What of S3 reaches the wire: signatures, headers and keys, by the engine and by aiobotocore."""

from dataclasses import replace
from pathlib import Path

import pytest

from cache_server.origins.origin import Target
from cache_server.origins.s3 import S3Options, S3Origin
from hotshard.core.errors import (
    ConfigError,
    PermissionDenied,
)
from support import faulty_http as faulty
from support.faulty_http import Scripted, scripted
from support.s3_origin import fetch, opened, want_of


async def test_a_redirect_is_followed_by_aiobotocore(
    server: Scripted, target: Target, credentials: None
) -> None:
    with scripted(server.body) as other:
        host = other.url.removeprefix("http://")
        server.script.append(
            faulty.answer(307, "TemporaryRedirect", Location=f"http://{host}/bucket/key")
        )
        async with opened(server.url) as (origin, _):
            assert (await fetch(origin, want_of(server), target))[1] == server.body


async def test_requests_are_signed_and_pinned(server: Scripted, target: Target) -> None:
    async with opened(server.url) as (origin, _):
        await origin.stat("s3://bucket/a b/ü+%")
        await fetch(origin, want_of(server, 100, 50), target)
        await fetch(origin, want_of(server), target)
    stat, part, whole = server.requests
    assert (stat.method, stat.path) == ("HEAD", "/bucket/a%20b/%C3%BC%2B%25")
    assert part.headers["range"] == "bytes=100-149"
    assert part.headers["if-match"] == f'"{server.etag}"'
    assert "AKIDEXAMPLE/" in part.headers["authorization"]
    assert "/eu-west-3/s3/aws4_request" in part.headers["authorization"]
    assert "range" not in whole.headers
    assert whole.headers["x-amz-checksum-mode"] == "ENABLED"


@pytest.mark.parametrize("key", ["a//b", "../up", "a/../b", "./c", "//", "k" * 1024, " ", "%00"])
async def test_keys_reach_the_wire_unfolded(server: Scripted, target: Target, key: str) -> None:
    """By both ways: the engine, and aiobotocore after a chunked answer."""
    if key.endswith("/"):
        key += "x"
    async with opened(server.url) as (origin, _):
        want = want_of(server)
        want = replace(want, info=replace(want.info, uri=f"s3://bucket/{key}"))
        server.script.append(faulty.chunked)
        assert (await fetch(origin, want, target))[1] == server.body
    engine, botocore = (seen.path for seen in server.requests)
    assert engine == botocore
    assert engine.count("/") == 2 + key.count("/")


async def test_an_anonymous_origin_sends_no_credentials(server: Scripted, target: Target) -> None:
    server.script.extend([faulty.right, faulty.chunked])
    async with opened(server.url, anonymous=True) as (origin, _):
        await origin.stat("s3://bucket/key")
        await fetch(origin, want_of(server), target)
    assert len(server.requests) == 3
    assert not any("authorization" in seen.headers for seen in server.requests)


async def test_requester_pays_is_said_and_signed(server: Scripted, target: Target) -> None:
    server.script.extend([faulty.right, faulty.chunked])
    async with opened(server.url, requester_pays=True) as (origin, _):
        await origin.stat("s3://bucket/key")
        await fetch(origin, want_of(server), target)
    assert len(server.requests) == 3
    for seen in server.requests:
        assert seen.headers["x-amz-request-payer"] == "requester"
        assert "x-amz-request-payer" in seen.headers["authorization"]


async def test_a_session_token_is_sent(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "the-token")
    async with opened(server.url) as (origin, _):
        await origin.stat("s3://bucket/key")
    assert server.requests[0].headers["x-amz-security-token"] == "the-token"


async def test_a_proxy_is_left_to_botocore(
    server: Scripted, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    async with opened("http://s3.nowhere.invalid") as (origin, _):
        assert (await fetch(origin, want_of(server), target))[1] == server.body
    assert server.requests[0].path == "http://s3.nowhere.invalid/bucket/key"


async def test_no_credentials_at_all(
    server: Scripted, target: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    async with opened(server.url) as (origin, _):
        with pytest.raises(PermissionDenied, match="no AWS credentials"):
            await fetch(origin, want_of(server), target)


async def test_a_profile_that_does_not_exist_is_a_mistake_of_the_configuration(
    credentials: None,
) -> None:
    origin = S3Origin(S3Options("s3://bucket/", profile="no-such-profile"))
    with pytest.raises(ConfigError, match="no-such-profile"):
        await origin.start()
    await origin.close()


@pytest.mark.parametrize(
    ("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")]
)
async def test_a_bucket_in_another_region_is_found_once_and_signed_for_there(
    server: Scripted, target: Target, status: int, code: str
) -> None:
    """Configured for eu-west-3; the engine meets the refusal, botocore finds the region, both go on."""
    wrong = faulty.answer(status, code, "eu-central-1")
    server.script.extend([wrong, wrong])
    async with opened(server.url) as (origin, outcomes):
        assert (await fetch(origin, want_of(server), target))[1] == server.body
        assert (await fetch(origin, want_of(server), target))[1] == server.body
    regions = [seen.headers["authorization"].split("/")[2] for seen in server.requests]
    assert regions[0] == "eu-west-3"
    assert regions[-1] == "eu-central-1"
    assert "python" not in server.requests[-1].headers["user-agent"].lower()  # the engine again
    assert outcomes == [f"GET ok {len(server.body)}"] * 2
