"""The origin that a section of the configuration describes; not started yet."""

from cache_server.config import FetchConfig, OriginConfig
from cache_server.origins.origin import OnRequest, ignore_request
from cache_server.origins.posix import PosixOptions, PosixOrigin
from cache_server.origins.s3 import S3Options, S3Origin


def origin_of(
    origin: OriginConfig, fetch: FetchConfig, on_request: OnRequest = ignore_request
) -> S3Origin | PosixOrigin:
    """Make it; `start` it before use, and `close` it."""
    if not origin.prefix.startswith("s3://"):
        return PosixOrigin(PosixOptions(origin.prefix, fetch.concurrency), on_request)
    options = S3Options(
        prefix=origin.prefix,
        endpoint_url=origin.endpoint_url,
        region=origin.region,
        profile=origin.profile,
        anonymous=origin.anonymous,
        addressing=origin.addressing,
        requester_pays=origin.requester_pays,
        concurrency=fetch.concurrency,
        attempts=fetch.attempts,
        connect_timeout_s=fetch.connect_timeout_s,
        read_timeout_s=fetch.read_timeout_s,
    )
    return S3Origin(options, on_request)
