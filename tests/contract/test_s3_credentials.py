"""Credentials as they come on EKS, from servers that speak the protocols, into what the engine signs."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache_server.origins.origin import Fetched, Target
from cache_server.origins.s3 import S3Origin
from support import faulty_http as faulty
from support.aws_credentials import Issuer, issuer
from support.faulty_http import Scripted
from support.s3_origin import fetch, opened, want_of


@pytest.fixture
def issued() -> Iterator[Issuer]:
    with issuer() as state:
        yield state


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment of a pod: no keys in it, no files of a user."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("token-1")
    return path


def pod_identity(monkeypatch: pytest.MonkeyPatch, issued: Issuer, token_file: Path) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issued.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token_file))


def irsa(monkeypatch: pytest.MonkeyPatch, issued: Issuer, token_file: Path) -> None:
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/cache")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token_file))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", issued.url)


SOURCES = {"AKIDPOD": pod_identity, "AKIDSTS": irsa}


@pytest.fixture(params=SOURCES)
def kind(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    issued: Issuer,
    token_file: Path,
    no_keys: None,
) -> str:
    """How the access keys begin that this source gives."""
    SOURCES[request.param](monkeypatch, issued, token_file)
    return str(request.param)


async def quick_fetch(origin: S3Origin, server: Scripted, target: Target) -> Fetched | Exception:
    """A fetch that was begun, as those of small objects are; by `fetch` where it cannot be."""
    landed: asyncio.Future[Fetched | Exception] = asyncio.get_running_loop().create_future()
    if not origin.begin_fetch(want_of(server), target, landed.set_result):
        return await origin.fetch(want_of(server), target)
    return await landed


async def test_keys_of_a_pod_sign_every_kind_of_request(
    server: Scripted, target: Target, issued: Issuer, kind: str
) -> None:
    async with opened(server.url) as (origin, _):
        await origin.stat("s3://bucket/key")
        assert (await fetch(origin, want_of(server), target))[1] == server.body
        assert isinstance(await quick_fetch(origin, server, target), Fetched)
        server.script.append(faulty.chunked)  # aiobotocore's turn
        assert (await fetch(origin, want_of(server), target))[1] == server.body
    assert len(server.requests) == 5
    for seen in server.requests:
        assert f"{kind}0001/" in seen.headers["authorization"]
        assert seen.headers["x-amz-security-token"] == "session-0001"
    assert issued.tokens == ["token-1"]


async def test_keys_that_expire_during_a_run_are_renewed_with_the_token_of_that_moment(
    server: Scripted, target: Target, issued: Issuer, token_file: Path, kind: str
) -> None:
    """The kubelet rotates the token in its file; the engine signs with what is good now."""
    issued.short_lived.add("token-1")  # less than botocore leaves to spare: due at the next look
    async with opened(server.url) as (origin, _):
        await fetch(origin, want_of(server), target)
        token_file.write_text("token-2")
        async with asyncio.timeout(90):
            while "token-2" not in issued.tokens:
                assert isinstance(await quick_fetch(origin, server, target), Fetched)
        assert isinstance(await quick_fetch(origin, server, target), Fetched)
    number = f"{len(issued.tokens):04}"
    assert f"{kind}{number}/" in server.requests[-1].headers["authorization"]
    assert server.requests[-1].headers["x-amz-security-token"] == f"session-{number}"
    assert issued.tokens.count("token-2") == 1


async def test_keys_of_a_profile(
    server: Scripted,
    target: Target,
    tmp_path: Path,
    no_keys: None,
) -> None:
    (tmp_path / "credentials").write_text(
        "[train]\naws_access_key_id = AKIDPROFILE\naws_secret_access_key = secret\n"
    )
    async with opened(server.url, profile="train") as (origin, _):
        await fetch(origin, want_of(server), target)
    assert "AKIDPROFILE/" in server.requests[0].headers["authorization"]


async def test_requester_pays_is_said_with_every_verb(server: Scripted, target: Target) -> None:
    """HEAD, GET in part and whole, begun or awaited, by the engine or by aiobotocore."""
    async with opened(server.url, requester_pays=True) as (origin, _):
        await origin.stat("s3://bucket/key")
        await fetch(origin, want_of(server, 5, 10), target)
        assert isinstance(await quick_fetch(origin, server, target), Fetched)
        server.script.append(faulty.chunked)
        await fetch(origin, want_of(server), target)
    assert [seen.headers["x-amz-request-payer"] for seen in server.requests] == ["requester"] * 5
