"""The demo's dataset: seeded, so that every run and every machine has the same bytes.

4 shards of 64 MiB, as WebDataset or MDS files are, and 2,500 objects of 100 KiB, as images are. Nothing
of it is kept in memory: an object is made, hashed, uploaded and forgotten.
"""

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import xxhash

SEED = 20260
BUCKET = "demo"
PREFIX = f"s3://{BUCKET}/train/"
UPLOADS = 4
"""At a time; bounds the memory to so many shards."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One object, and what its bytes hash to."""

    key: str
    size: int
    digest: str = ""

    @property
    def uri(self) -> str:
        """Its address."""
        return f"s3://{BUCKET}/{self.key}"

    def content(self) -> bytes:
        """Its bytes."""
        return random.Random(f"{SEED}/{self.key}").randbytes(self.size)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Bucket:
    """How to reach the bucket; crosses to the reader processes as JSON."""

    endpoint_url: str
    region: str
    access_key: str
    secret_key: str

    def store(self) -> Any:
        """An obstore client for it, the quickest one there is for Python."""
        from obstore.store import S3Store

        return S3Store(
            BUCKET,
            endpoint=self.endpoint_url,
            region=self.region,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            client_options={"allow_http": True},
        )


def samples(shards: int = 4, shard_bytes: int = 64 << 20, small: int = 2500) -> list[Sample]:
    """The objects, without their digests."""
    return [
        *(Sample(f"train/shard-{n:05d}.tar", shard_bytes) for n in range(shards)),
        *(Sample(f"train/images/{n // 100:03d}/{n:06d}.jpg", 100 << 10) for n in range(small)),
    ]


def create(bucket: Bucket) -> None:
    """Make the empty bucket; obstore has no call for that."""
    from botocore.session import get_session

    client = get_session().create_client(
        "s3",
        endpoint_url=bucket.endpoint_url,
        region_name=bucket.region,
        aws_access_key_id=bucket.access_key,
        aws_secret_access_key=bucket.secret_key,
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()


def upload(bucket: Bucket, plan: list[Sample], advance: Callable[[int], None]) -> list[Sample]:
    """Put the objects there; the same list with digests."""
    import obstore

    store = bucket.store()

    def put(sample: Sample) -> Sample:
        content = sample.content()
        obstore.put(store, sample.key, content, use_multipart=False)
        advance(len(content))
        return Sample(sample.key, sample.size, xxhash.xxh3_64_hexdigest(content))

    with ThreadPoolExecutor(UPLOADS, thread_name_prefix="upload") as pool:
        return list(pool.map(put, plan))
