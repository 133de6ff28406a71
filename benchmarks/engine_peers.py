"""Engines that are no candidates for the cache's own fetching: what else people read objects with."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.engines import Fetch, Load

REDIS_URL = "HOTSHARD_BENCH_REDIS"


async def boto3(load: "Load", exits: AsyncExitStack) -> "Fetch":
    """One client, as many threads as there are requests in flight."""
    import boto3 as boto
    from botocore.config import Config

    config = Config(max_pool_connections=load.in_flight, s3={"addressing_style": "path"})
    client: Any = boto.client("s3", config=config)
    pool = exits.enter_context(ThreadPoolExecutor(load.in_flight))
    loop = asyncio.get_running_loop()

    def get(key: str, wanted: str) -> int:
        return len(client.get_object(Bucket=load.bucket, Key=key, Range=wanted)["Body"].read())

    async def fetch(key: str, offset: int, length: int) -> int:
        wanted = f"bytes={offset}-{offset + length - 1}"
        return await loop.run_in_executor(pool, partial(get, key, wanted))

    return fetch


async def whole_objects(load: "Load", _: AsyncExitStack) -> "Fetch":
    """What obstore does without a Range header, which a caching proxy would drop from a signed request."""
    import obstore

    from benchmarks.load.targets import s3_store

    store = s3_store(load.bucket, os.environ)

    async def fetch(key: str, offset: int, length: int) -> int:
        if offset or length != load.object_bytes:
            raise ValueError("only whole objects")
        reply = await obstore.get_async(store, key)
        return len(await reply.bytes_async())

    return fetch


async def s3fs(load: "Load", exits: AsyncExitStack) -> "Fetch":
    """The file system that fsspec uses for S3."""
    import s3fs as fs

    system: Any = fs.S3FileSystem(
        asynchronous=True,
        config_kwargs={
            "max_pool_connections": load.in_flight,
            "s3": {"addressing_style": "path"},
        },
    )
    session = await system.set_session()
    exits.push_async_callback(session.close)

    async def fetch(key: str, offset: int, length: int) -> int:
        body = await system._cat_file(  # noqa: SLF001
            f"{load.bucket}/{key}", start=offset, end=offset + length
        )
        return len(body)

    return fetch


async def redis(load: "Load", exits: AsyncExitStack) -> "Fetch":
    """Objects as values under their keys; whole ones with GET, pieces with GETRANGE."""
    from redis.asyncio import Redis

    client: Any = Redis.from_url(os.environ[REDIS_URL], max_connections=load.in_flight)
    exits.push_async_callback(client.aclose)

    async def fetch(key: str, offset: int, length: int) -> int:
        if length == load.object_bytes:
            return len(await client.get(key))
        return len(await client.getrange(key, offset, offset + length - 1))

    return fetch
