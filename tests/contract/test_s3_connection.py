"""Connections over TLS: whom they trust, and that the bytes come."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache_server.origins.origin import Target
from hotshard.core.errors import OriginUnavailable
from support import faulty_http as faulty
from support.certificates import Authority
from support.faulty_http import Scripted, scripted
from support.s3_origin import fetch, opened, patience_with, want_of


def certificate(directory: Path, address: str) -> Path:
    """An authority and a certificate it signed, with the key, in one file."""
    authority = Authority(directory)
    issued, key = authority.issue(address, address)
    pem = directory / f"{address}.pem"
    pem.write_bytes(b"".join(Path(p).read_bytes() for p in (key, issued, authority.path)))
    return pem


def serving(pem: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


@pytest.fixture
def secure(
    credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scripted]:
    pem = certificate(tmp_path, "127.0.0.1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))
    with scripted(os.urandom(700_000), tls=serving(pem)) as state:
        yield state


async def test_bytes_over_tls(secure: Scripted, target: Target) -> None:
    async with opened(secure.url) as (origin, _):
        for offset in (0, 300_000):
            got = (await fetch(origin, want_of(secure, offset), target))[1]
            assert got == secure.body[offset:]
        assert (await origin.stat("s3://bucket/key")).size == len(secure.body)
    assert secure.connections == 1


@pytest.mark.parametrize(
    "behaviour", [faulty.short_body, faulty.silent, faulty.drip, faulty.reset_mid_body]
)
async def test_faults_over_tls(
    secure: Scripted, target: Target, behaviour: faulty.Behaviour
) -> None:
    secure.script.append(behaviour)
    async with opened(secure.url, **patience_with(behaviour)) as (origin, outcomes):
        _, got = await fetch(origin, want_of(secure, 0, 100_000), target)
        assert got == secure.body[:100_000]
        assert (outcomes[0], outcomes[-1]) == ("GET retry 0", "GET ok 100000")


async def test_a_certificate_of_an_unknown_authority(
    secure: Scripted, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE")
    async with opened(secure.url) as (origin, outcomes):
        with pytest.raises(OriginUnavailable, match=r"certificate.*AWS_CA_BUNDLE"):
            await fetch(origin, want_of(secure), target)
        assert outcomes == ["GET origin_unavailable 0"]
    assert secure.requests == []


async def test_a_certificate_of_another_host(
    credentials: None, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pem = certificate(tmp_path, "127.0.0.2")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))
    with scripted(b"12345", tls=serving(pem)) as server:
        async with opened(server.url) as (origin, _):
            with pytest.raises(OriginUnavailable, match="certificate"):
                await fetch(origin, want_of(server), target)
    assert server.requests == []
