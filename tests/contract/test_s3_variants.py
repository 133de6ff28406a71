"""Buckets of other kinds, in moto's S3: what SeaweedFS does not have."""

import asyncio
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from cache_server.origins.origin import Target, Want
from hotshard.core.errors import NotFound, StaleObject
from support.s3_origin import fetch, opened


@pytest.fixture
def moto(credentials: None) -> Iterator[tuple[str, Any]]:
    """The url of an S3 server, and a client of it with a bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto = boto3.client("s3", endpoint_url=url)
    boto.create_bucket(
        Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-3"}
    )
    yield url, boto
    for version in boto.list_object_versions(Bucket="bucket").get("Versions", []):
        boto.delete_object(Bucket="bucket", Key=version["Key"], VersionId=version["VersionId"])
    for marker in boto.list_object_versions(Bucket="bucket").get("DeleteMarkers", []):
        boto.delete_object(Bucket="bucket", Key=marker["Key"], VersionId=marker["VersionId"])
    boto.delete_bucket(Bucket="bucket")  # moto keeps one world for the whole process
    boto.close()
    server.stop()


async def test_a_versioned_bucket_is_read_at_its_current_version(
    moto: tuple[str, Any], target: Target
) -> None:
    url, boto = moto
    await asyncio.to_thread(
        boto.put_bucket_versioning,
        Bucket="bucket",
        VersioningConfiguration={"Status": "Enabled"},
    )
    await asyncio.to_thread(boto.put_object, Bucket="bucket", Key="k", Body=b"old content")
    async with opened(url, read_timeout_s=10.0) as (origin, _):
        old = await origin.stat("s3://bucket/k")
        await asyncio.to_thread(boto.put_object, Bucket="bucket", Key="k", Body=b"new")
        with pytest.raises(StaleObject):
            await fetch(origin, Want(old, 0, old.size), target)
        new = await origin.stat("s3://bucket/k")
        assert (await fetch(origin, Want(new, 0, new.size), target))[1] == b"new"
        await asyncio.to_thread(boto.delete_object, Bucket="bucket", Key="k")  # a delete marker
        with pytest.raises(NotFound):
            await origin.stat("s3://bucket/k")


async def test_an_object_encrypted_with_a_kms_key_is_read_as_any_other(
    moto: tuple[str, Any], target: Target
) -> None:
    url, boto = moto
    body = bytes(range(256)) * 1000
    await asyncio.to_thread(
        boto.put_object, Bucket="bucket", Key="k", Body=body, ServerSideEncryption="aws:kms"
    )
    async with opened(url, read_timeout_s=10.0) as (origin, outcomes):
        info = await origin.stat("s3://bucket/k")
        for offset, length in ((0, info.size), (1000, 5000)):
            _, got = await fetch(origin, Want(info, offset, length), target)
            assert got == body[offset:][:length]
    assert outcomes == ["HEAD ok 0", f"GET ok {len(body)}", "GET ok 5000"]
