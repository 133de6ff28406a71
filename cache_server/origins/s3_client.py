"""aiobotocore behind the S3 origin: credentials, endpoints, LIST, and every request the engine declines.

botocore decides where a bucket is (region, addressing, FIPS, dual stack, environment, profile) and how
requests to it are signed. The engine learns it from the request that botocore would send, caught just
before it leaves: the one place where all of that has been settled.
"""

import contextlib
import os
import ssl
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.httpsession import get_cert_path

from cache_server.origins.s3_connection import Endpoint, Timeouts
from cache_server.origins.s3_listing import take_over
from cache_server.origins.s3_replies import Refusal, Subject, failure
from cache_server.origins.sigv4 import Keys, Signer
from cache_server.origins.tries import Transient
from hotshard.core.errors import (
    ConfigError,
    HotshardError,
    InvalidRequest,
    OriginUnavailable,
    PermissionDenied,
)

_PROBE_KEY = "hotshard"
_CHUNK_BYTES = 1 << 20
_KEYS_S = 1.0
ANONYMOUS = Keys("", "")
_probing: ContextVar[bool] = ContextVar("probing", default=False)


@dataclass(frozen=True, slots=True)
class S3Options:
    """One S3 origin. What is None is left to the environment and the AWS configuration files."""

    prefix: str
    """The uri prefix to serve, with a final "/"."""
    endpoint_url: str | None = None
    """Another S3 than AWS's own."""
    region: str | None = None
    profile: str | None = None
    """A profile of the AWS configuration files."""
    anonymous: bool = False
    """Send no credentials: public buckets."""
    addressing: str = "auto"
    """Where the bucket's name goes: "auto", "path" or "virtual"."""
    requester_pays: bool = False
    """Agree to be charged for requests."""
    concurrency: int = 32
    """Requests at one time; the size of the thread pool."""
    attempts: int = 5
    """Tries in all before an origin counts as unavailable."""
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: status and lower-case headers."""

    status: int
    headers: Mapping[str, str]


class _Caught(Exception):
    """Carries a prepared request out of botocore instead of onto the wire."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


class S3Client:
    """One bucket through aiobotocore. Raises only HotshardError and Transient."""

    def __init__(self, options: S3Options, bucket: str) -> None:
        self._options = options
        self._bucket = bucket
        self._exits = contextlib.AsyncExitStack()
        self._session: Any = None
        self._client: Any = None
        self._keys: Keys | None = None
        self._keys_at = float("-inf")
        self._payer = {"RequestPayer": "requester"} if options.requester_pays else {}

    async def start(self) -> None:
        """Read the AWS configuration; asks no network but the credential providers.

        Raises:
            ConfigError: a profile, region or endpoint that cannot work.
        """
        options = self._options
        config = AioConfig(
            connect_timeout=options.connect_timeout_s,
            read_timeout=options.read_timeout_s,
            max_pool_connections=options.concurrency,
            retries={"total_max_attempts": 1},  # the origin retries, with one budget for all
            s3={"addressing_style": options.addressing},
            signature_version=UNSIGNED if options.anonymous else None,
        )
        try:
            self._session = AioSession(profile=options.profile)
            self._client = await self._exits.enter_async_context(
                self._session.create_client(
                    "s3",
                    # botocore itself knows AWS_DEFAULT_REGION only; every other SDK reads this one
                    region_name=options.region or os.environ.get("AWS_REGION"),
                    endpoint_url=options.endpoint_url,
                    config=config,
                )
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigError([f"origin {options.prefix}: {error}"]) from error
        self._client.meta.events.register_first("before-send.s3.HeadObject", _catch)
        self._client.meta.events.register("before-parse.s3.ListObjectsV2", _list)

    async def close(self) -> None:
        """Close the connections; idempotent."""
        await self._exits.aclose()

    async def keys(self, subject: Subject) -> Keys | None:
        """The credentials of this moment, refreshed when due; None: anonymous."""
        if self._options.anonymous:
            return None
        with _translated(subject):
            credentials = await self._session.get_credentials()
            if credentials is None:
                raise NoCredentialsError
            frozen = await credentials.get_frozen_credentials()
        self._keys = Keys(frozen.access_key, frozen.secret_key, frozen.token)
        self._keys_at = time.monotonic()
        return self._keys

    def keys_now(self) -> Keys | None:
        """The credentials, if they were looked at a moment ago; None: await `keys`.

        botocore renews those that expire 10 to 15 minutes ahead, so a moment changes nothing.
        """
        if self._options.anonymous:
            return ANONYMOUS
        return self._keys if time.monotonic() - self._keys_at < _KEYS_S else None

    async def endpoint(self, subject: Subject) -> Endpoint | None:
        """Where and how to ask for objects; None: only botocore can (proxies, other signatures)."""
        token = _probing.set(True)
        try:
            with _translated(subject):
                await self._client.head_object(Bucket=self._bucket, Key=_PROBE_KEY)
        except _Caught as caught:
            return _endpoint_of(caught.request, self._tls)
        finally:
            _probing.reset(token)
        raise OriginUnavailable("botocore sent a request that was to be caught", uri=subject.uri)

    async def list(self, subject: Subject, **query: Any) -> dict[str, Any]:
        """One page of ListObjectsV2, as botocore decodes it."""
        with _translated(subject):
            page: dict[str, Any] = await self._client.list_objects_v2(
                Bucket=self._bucket, **query, **self._payer
            )
        return page

    async def head(self, subject: Subject, key: str, **query: Any) -> Answer:
        """HEAD an object."""
        with _translated(subject):
            reply = await self._client.head_object(
                Bucket=self._bucket, Key=key, **query, **self._payer
            )
        return _answer(reply)

    @contextlib.asynccontextmanager
    async def get(
        self, subject: Subject, key: str, **query: Any
    ) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """GET an object: its answer, and its body in pieces."""
        with _translated(subject):
            reply = await self._client.get_object(
                Bucket=self._bucket, Key=key, **query, **self._payer
            )
            body = reply["Body"]
            try:
                yield _answer(reply), body.iter_chunks(_CHUNK_BYTES)
            finally:
                body.close()  # a body that was not read to its end must not go back to the pool

    def _tls(self) -> ssl.SSLContext:
        """Trust what botocore trusts: AWS_CA_BUNDLE, the profile's ca_bundle, or its own list."""
        bundle = self._session.get_config_variable("ca_bundle") or get_cert_path(verify=True)
        return ssl.create_default_context(cafile=bundle)


def _list(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    take_over(response_dict, customized_response_dict)


def timeouts_of(options: S3Options) -> Timeouts:
    """The engine's share of the options."""
    return Timeouts(options.connect_timeout_s, options.read_timeout_s)


def _catch(request: Any, **_: Any) -> None:
    if _probing.get():
        raise _Caught(request)


def _endpoint_of(request: Any, tls: Any) -> Endpoint | None:
    url = urlsplit(request.url)
    host = url.hostname or ""
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    if url.query or not url.path.endswith(f"/{_PROBE_KEY}") or "x-amz-s3session-token" in headers:
        return None
    proxies = urllib.request.getproxies_environment()
    if url.scheme in proxies and not urllib.request.proxy_bypass(host, proxies):
        return None
    signer = None
    if "authorization" in headers:
        algorithm, _, rest = headers["authorization"].partition(" Credential=")
        scope = rest.partition(",")[0].split("/")[-4:]  # day, region, service, aws4_request
        if algorithm != "AWS4-HMAC-SHA256" or len(scope) != 4:
            return None
        signer = Signer(scope[1], scope[2])
    secure = url.scheme == "https"
    return Endpoint(
        host=host,
        port=url.port or (443 if secure else 80),
        authority=url.netloc,
        path=url.path.removesuffix(_PROBE_KEY),
        tls=tls() if secure else None,
        signer=signer,
    )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _answer(reply: Mapping[str, Any]) -> Answer:
    metadata = reply["ResponseMetadata"]
    return Answer(metadata["HTTPStatusCode"], metadata["HTTPHeaders"])


@contextlib.contextmanager
def _translated(subject: Subject) -> Any:
    """Turn botocore's exceptions into ours; the one place."""
    try:
        yield
    except ClientError as error:
        raise _failure_of(error, subject) from error
    except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
        raise PermissionDenied(
            f"no AWS credentials for {subject.uri} ({error}). Give the server an IAM role (IRSA, Pod"
            " Identity), a profile, or AWS_ACCESS_KEY_ID; or set anonymous for a public bucket",
            uri=subject.uri,
        ) from error
    except (HTTPClientError, ReadTimeoutError, aiohttp.ClientError, TimeoutError) as error:
        raise Transient(f"{type(error).__name__}: {error}") from error
    except ParamValidationError as error:
        raise InvalidRequest(f"{subject.uri}: {error}", uri=subject.uri) from error
    except BotoCoreError as error:
        raise OriginUnavailable(f"{subject.uri}: {error}", uri=subject.uri) from error


def _failure_of(error: ClientError, subject: Subject) -> HotshardError | Transient:
    metadata = error.response.get("ResponseMetadata", {})
    said = error.response.get("Error", {})
    code = str(said.get("Code", ""))
    refused = Refusal(
        status=int(metadata.get("HTTPStatusCode", 0)),
        code="" if code.isdigit() else code,
        message=str(said.get("Message", "")),
        retry_after=metadata.get("HTTPHeaders", {}).get("retry-after", ""),
    )
    return failure(refused, subject)
