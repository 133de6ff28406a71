"""What only S3 has: checksums of uploads, folder marks, buckets, permissions."""

import base64
import random
from dataclasses import replace
from typing import Any

import pytest

from cache_server.origins.origin import Target, Want
from hotshard.cli.s3_server import SeaweedS3
from hotshard.core.checksum import Algorithm, checksum
from hotshard.core.errors import (
    NotFound,
    PermissionDenied,
)
from hotshard.core.objects import ObjectInfo
from support import faulty_http as faulty
from support.faulty_http import scripted
from support.s3_origin import fetch, opened, want_of

BODY = random.Random(3).randbytes(600_000)
SHORT = BODY[:500]

S3_NAMES = {
    "CRC64NVME": Algorithm.CRC64NVME,
    "CRC32C": Algorithm.CRC32C,
    "CRC32": Algorithm.CRC32,
}


@pytest.mark.parametrize("name", S3_NAMES)
async def test_the_checksum_of_the_upload_is_found_and_compared(
    s3: SeaweedS3, bucket: tuple[Any, str], target: Target, name: str
) -> None:
    boto, bucket_name = bucket
    boto.put_object(Bucket=bucket_name, Key="key", Body=BODY, ChecksumAlgorithm=name)
    true = checksum(S3_NAMES[name], BODY)
    async with opened(s3.endpoint_url, prefix=f"s3://{bucket_name}/") as (origin, _):
        info = await origin.stat(f"s3://{bucket_name}/key")
        found = await origin.whole_checksum(info)
        assert found is not None
        assert (found.algorithm, found.value) == (S3_NAMES[name], true)
        fetched, got = await fetch(origin, Want(info, 0, info.size), target)
        assert got == BODY
        assert (fetched.algorithm, fetched.checksum) == (S3_NAMES[name], true)
        assert fetched.whole == found
        stale = replace(info, version="0" * 32)
        assert await origin.whole_checksum(stale) is None


async def test_bytes_that_do_not_match_the_checksum_are_fetched_again(
    credentials: None, target: Target
) -> None:
    with scripted(SHORT, extra={"x-amz-checksum-crc32c": _crc32c(SHORT)}) as server:
        server.script.append(faulty.flipped_bit)
        async with opened(server.url) as (origin, outcomes):
            assert (await fetch(origin, want_of(server), target))[1] == SHORT
            assert outcomes == ["GET retry 0", f"GET ok {len(SHORT)}"]


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"x-amz-checksum-crc32c": "YDZ3Vg==-3"},
        {"x-amz-checksum-crc32c": "YDZ3Vg==", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-crc32c": "not base64!"},
        {"x-amz-checksum-sha256": "YDZ3Vg=="},
    ],
)
async def test_checksums_that_cannot_be_combined_are_none(
    credentials: None, target: Target, extra: dict[str, str]
) -> None:
    with scripted(SHORT, extra=extra) as server:
        async with opened(server.url) as (origin, _):
            want = want_of(server)
            assert await origin.whole_checksum(want.info) is None
            fetched, got = await fetch(origin, want, target)
            assert (fetched.whole, fetched.algorithm) == (None, Algorithm.XXH3_64)
            assert got == SHORT


def _crc32c(data: bytes) -> str:
    return base64.b64encode(checksum(Algorithm.CRC32C, data).to_bytes(4, "big")).decode()


async def test_a_key_of_1024_bytes(s3: SeaweedS3, bucket: tuple[Any, str], target: Target) -> None:
    boto, name = bucket
    key = "/".join(["d" * 200] * 5) + "/" + "k" * 19
    assert len(key) == 1024
    boto.put_object(Bucket=name, Key=key, Body=SHORT)
    async with opened(s3.endpoint_url, prefix=f"s3://{name}/") as (origin, _):
        info = await origin.stat(f"s3://{name}/{key}")
        assert (await fetch(origin, Want(info, 0, info.size), target))[1] == SHORT


async def test_folder_marks_are_not_listed(s3: SeaweedS3, bucket: tuple[Any, str]) -> None:
    boto, name = bucket
    boto.put_object(Bucket=name, Key="folder/", Body=b"")
    boto.put_object(Bucket=name, Key="folder/one", Body=b"1")
    async with opened(s3.endpoint_url, prefix=f"s3://{name}/") as (origin, _):
        page = await origin.list_page(f"s3://{name}/", recursive=True, token="", page_size=10)
    assert [info.uri for info in page.objects] == [f"s3://{name}/folder/one"]


async def test_a_bucket_that_is_not_there(s3: SeaweedS3) -> None:
    async with opened(s3.endpoint_url, prefix="s3://no-such-bucket/") as (origin, _):
        with pytest.raises(NotFound, match="no such bucket: no-such-bucket"):
            await origin.list_page("s3://no-such-bucket/", recursive=True, token="", page_size=10)
        with pytest.raises(NotFound):
            await origin.stat("s3://no-such-bucket/key")


async def test_wrong_credentials_are_denied_with_advice(
    s3: SeaweedS3, bucket: tuple[Any, str], target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto, name = bucket
    put = boto.put_object(Bucket=name, Key="key", Body=SHORT)
    info = ObjectInfo(f"s3://{name}/key", put["ETag"].strip('"'), len(SHORT), 0)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    async with opened(s3.endpoint_url, prefix=f"s3://{name}/") as (origin, _):
        for request in (
            origin.stat(info.uri),
            origin.list_page(f"s3://{name}/", recursive=True, token="", page_size=10),
            origin.fetch(Want(info, 0, info.size), target),
        ):
            with pytest.raises(PermissionDenied, match=f"(?s){name}.*s3:GetObject"):
                await request
        assert await origin.whole_checksum(info) is None
