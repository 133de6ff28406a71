"""An S3 origin over a scripted server, and what tests do with it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cache_server.origins.origin import Fetched, Target, Want
from cache_server.origins.s3 import S3Options, S3Origin
from hotshard.core.objects import ObjectInfo
from support import faulty_http as faulty
from support.faulty_http import Behaviour, Scripted

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "eu-west-3",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@asynccontextmanager
async def opened(url: str | None, **options: Any) -> AsyncIterator[tuple[S3Origin, list[str]]]:
    """An origin, and the outcomes it reports."""
    outcomes: list[str] = []
    defaults = {"addressing": "path", "read_timeout_s": 60.0, "connect_timeout_s": 60.0}
    origin = S3Origin(
        S3Options(**{"prefix": "s3://bucket/", "endpoint_url": url, **defaults, **options}),
        lambda verb, outcome, seconds, size: outcomes.append(f"{verb} {outcome} {size}"),
    )
    await origin.start()
    try:
        yield origin, outcomes
    finally:
        await origin.close()


def patience_with(behaviour: Behaviour) -> dict[str, float]:
    """Options of an origin that soon gives up on what stalls; anything else may just be slow."""
    return {"read_timeout_s": 0.5} if behaviour in (faulty.silent, faulty.drip) else {}


def want_of(server: Scripted, offset: int = 0, length: int | None = None) -> Want:
    info = ObjectInfo("s3://bucket/key", server.etag, len(server.body), 0)
    return Want(info, offset, info.size - offset if length is None else length)


async def fetch(origin: S3Origin, want: Want, target: Target) -> tuple[Fetched, bytes]:
    fetched = await origin.fetch(want, target)
    return fetched, os.pread(target.fd, want.length, target.file_offset)
