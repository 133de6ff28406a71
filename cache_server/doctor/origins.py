"""Whether each origin can be read from here: a real LIST, a HEAD, the first bytes; and its clock."""

import os
import time
from email.utils import parsedate_to_datetime

import aiohttp

from cache_server.config import OriginConfig, ServerConfig
from cache_server.origins.configured import origin_of
from cache_server.origins.origin import Origin, Target, Want
from hotshard.core.errors import (
    ConfigError,
    HotshardError,
    NotFound,
    OriginUnavailable,
    PermissionDenied,
)
from hotshard.core.findings import Finding, fail, ok, skipped, warn
from hotshard.core.objects import ObjectInfo

SKEW_WARN_S = 30.0
SKEW_FAIL_S = 600.0
"""S3 refuses signatures that are 15 minutes off."""
TIMEOUT_S = 5.0
FIRST_BYTES = 4096


async def check(config: ServerConfig) -> list[Finding]:
    """All origins, and the clock against those that have one."""
    if not config.origins:
        return [
            warn("origins", "none is configured", "add one under `origins`, or start with --origin")
        ]
    found = []
    for origin in config.origins:
        found.append(await _read(origin, config))
        if origin.prefix.startswith("s3:"):
            found += [await _credentials(origin), await _clock(origin)]
    return found


async def _read(section: OriginConfig, config: ServerConfig) -> Finding:
    name = f"origin {section.prefix}"
    fetch = config.fetch.model_copy(
        update={"attempts": 1, "concurrency": 2, "connect_timeout_s": TIMEOUT_S}
    )
    origin = origin_of(section, fetch)
    try:
        await origin.start()
        return await _try(name, origin, section.prefix)
    except ConfigError as error:
        return fail(name, str(error), "correct the configuration")
    except PermissionDenied as error:
        return fail(name, f"access is denied: {error}", _how_to_be_let_in(section.prefix))
    except NotFound as error:
        return fail(name, str(error), "correct the prefix; is the volume mounted?")
    except OriginUnavailable as error:
        remedy = "look at endpoint_url, DNS, the route (VPC endpoint, NAT) and security groups"
        return fail(name, str(error), remedy)
    except HotshardError as error:
        return fail(name, str(error), "see the message")
    finally:
        await origin.close()


async def _try(name: str, origin: Origin, prefix: str) -> Finding:
    began = time.monotonic()
    page = await origin.list_page(prefix, recursive=True, token="", page_size=10)
    listed_s = time.monotonic() - began
    objects = [info for info in page.objects if info.size]
    if not objects:
        remedy = "is the prefix right? Nothing lies below it"
        return warn(name, f"LIST took {listed_s * 1000:.0f} ms and found no object", remedy)
    began = time.monotonic()
    info = await origin.stat(objects[0].uri)
    described_s = time.monotonic() - began
    began = time.monotonic()
    await _first_bytes(origin, info)
    got_s = time.monotonic() - began
    return ok(
        name,
        f"LIST {listed_s * 1000:.0f} ms, HEAD {described_s * 1000:.0f} ms,"
        f" GET {got_s * 1000:.0f} ms",
    )


async def _first_bytes(origin: Origin, info: ObjectInfo) -> None:
    fd = os.memfd_create("doctor", os.MFD_CLOEXEC)
    try:
        await origin.fetch(Want(info, 0, min(info.size, FIRST_BYTES)), Target(fd, 0))
    finally:
        os.close(fd)


def _how_to_be_let_in(prefix: str) -> str:
    if prefix.startswith("file:"):
        return f"let uid {os.geteuid()} read it, or run the server as a user who may"
    return (
        "allow s3:ListBucket on the bucket, s3:GetObject on the prefix, kms:Decrypt on its key; check"
        " the role of the service account (Pod Identity, IRSA)"
    )


async def _credentials(section: OriginConfig) -> Finding:
    name = f"credentials for {section.prefix}"
    if section.anonymous:
        return ok(name, "none are used (anonymous)")
    from aiobotocore.session import AioSession

    try:
        session = AioSession(profile=section.profile)
        found = await session.get_credentials()
    except Exception as error:  # noqa: BLE001 - botocore raises what it likes
        return fail(name, f"{type(error).__name__}: {error}", "correct the AWS configuration")
    if found is None:
        remedy = (
            "give the service account a role (Pod Identity, IRSA), set AWS_ACCESS_KEY_ID, or set"
            " anonymous for a public bucket"
        )
        return fail(name, "none were found", remedy)
    return ok(name, f"from {found.method}")


async def _clock(section: OriginConfig) -> Finding:
    name = f"clock against {section.prefix}"
    region = section.region or os.environ.get("AWS_REGION") or "us-east-1"
    url = section.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")
    url = url or os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            before = time.time()
            async with session.get(url, allow_redirects=False) as response:
                after, date = time.time(), response.headers.get("Date", "")
    except (aiohttp.ClientError, OSError) as error:
        return skipped(name, f"{url} does not answer: {str(error) or type(error).__name__}")
    if not date:
        return skipped(name, f"{url} does not say what time it is")
    return skew(name, parsedate_to_datetime(date).timestamp(), before, after)


def skew(name: str, theirs_s: float, before_s: float, after_s: float) -> Finding:
    """What a Date of whole seconds, heard between two moments of our clock, says about our clock."""
    off = before_s - (theirs_s + 1.0) if before_s > theirs_s + 1.0 else min(0.0, after_s - theirs_s)
    fact = f"{abs(off):.0f} s {'ahead' if off > 0 else 'behind' if off < 0 else 'off'}"
    if abs(off) >= SKEW_FAIL_S:
        return fail(name, fact, "S3 refuses requests that are 15 minutes off: run chrony or NTP")
    if abs(off) >= SKEW_WARN_S:
        return warn(name, fact, "run chrony or NTP before it gets worse")
    return ok(name, fact)
