"""Members from Kubernetes: the EndpointSlices of a service, listed once and then watched.

    list --> watch from its resourceVersion --> events, bookmarks --> stream ends: watch from the last one
      ^                                               |
      '------------- 410 Gone: too far behind --------'

Whatever fails, is tried again with jittered backoff, and meanwhile the last list holds: members that die
then are noticed because they do not answer. The token is read anew for each request, because the kubelet
replaces it.
"""

import asyncio
import json
import logging
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from cache_server.cluster.providers.endpoints import BadSlice, Endpoints
from hotshard.core.backoff import Backoff
from hotshard.core.errors import ConfigError
from hotshard.core.members import Candidate

log = logging.getLogger(__name__)

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PAGE_SLICES = 500
WATCH_S = 300
"""For how long one watch lasts; the server ends it then, and a fresh token is used for the next."""
SILENCE_S = 30.0
LINE_BYTES_MAX = 16 << 20  # a slice has at most 1,000 endpoints
TOKEN_BYTES_MAX = 64 << 10
_WATCH_S_MIN = 1.0
_FAILURES_MAX = 32  # beyond it the wait does not grow any more
_BACKOFF = Backoff(attempts=_FAILURES_MAX + 1, initial_s=0.5, cap_s=30.0)
_ENDED = (aiohttp.ClientError, OSError, BadSlice)  # a timeout is an OSError, too


class Gone(Exception):
    """The server does not remember that far back: list again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesOptions:
    """Which service, and how to reach the API server."""

    service: str
    namespace: str = ""
    """Empty: that of the pod."""
    port_name: str = "grpc"
    port: int = 7070
    """For slices that do not name the port."""
    url: str = ""
    """Empty: from the pod's environment."""
    account: str = ACCOUNT
    """The directory of the ServiceAccount: token, ca.crt, namespace."""


class KubernetesProvider:
    """Watches the slices of one service."""

    def __init__(
        self,
        options: KubernetesOptions,
        environ: Mapping[str, str],
        random_unit: Callable[[], float],
        backoff: Backoff = _BACKOFF,
    ) -> None:
        """Make it.

        Raises:
            ConfigError: this is no pod, and no address of an API server is given.
        """
        self._options = options
        self._random_unit = random_unit
        self._backoff = backoff
        self._url = options.url or _url(environ)
        self._endpoints = Endpoints(options.port_name, options.port)
        self._version = ""  # to watch from; empty: list first

    async def lists(self) -> AsyncGenerator[Sequence[Candidate], None]:
        """See provider.Provider."""
        failures = 0
        while True:
            try:
                async with self._session() as session:
                    async for _ in self._follow(session):
                        if failures:
                            log.info("the Kubernetes API answers again")
                        failures = 0
                        yield self._endpoints.candidates()
            except Gone:
                log.info("the Kubernetes API has forgotten our version: listing again")
                self._version = ""
            except _ENDED as error:
                if not failures:
                    log.warning("the Kubernetes API: %s", str(error) or type(error).__name__)
            failures = min(failures + 1, _FAILURES_MAX)
            await asyncio.sleep(self._backoff.delay_s(failures, self._random_unit()) or 0.0)

    async def _follow(self, session: aiohttp.ClientSession) -> AsyncIterator[None]:
        """Until something fails; stops at each answer and each change."""
        if not self._version:
            await self._list(session)
            yield
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            async with await self._get(session, self._watch_parameters()) as response:
                yield
                async for line in _lines(response.content):
                    kind, found = _event(line)
                    if kind != "BOOKMARK":
                        self._endpoints.apply(kind, found)
                        yield
                    self._version = found["metadata"]["resourceVersion"]
            if loop.time() - began_s < _WATCH_S_MIN:
                raise BadSlice("the watch ended at once")

    def _watch_parameters(self) -> dict[str, str]:
        return {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(int(WATCH_S * (1 + self._random_unit()) / 2)),
        }

    async def _list(self, session: aiohttp.ClientSession) -> None:
        slices: list[Mapping[str, Any]] = []
        token, version = "", ""
        while not version or token:
            more = {"continue": token} if token else {}
            async with await self._get(session, {"limit": str(PAGE_SLICES), **more}) as response:
                try:
                    page = await response.json()
                    slices += page["items"]
                    version = str(page["metadata"]["resourceVersion"])
                    token = page["metadata"].get("continue") or ""
                except (KeyError, TypeError, ValueError) as error:
                    raise BadSlice(f"not a list of EndpointSlices: {error!r}") from error
        self._endpoints.replace(slices)
        self._version = version

    async def _get(
        self, session: aiohttp.ClientSession, parameters: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        options = self._options
        token = await asyncio.to_thread(_read, f"{options.account}/token")
        namespace = options.namespace or await asyncio.to_thread(
            _read, f"{options.account}/namespace"
        )
        response = await session.get(
            f"{self._url}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
            params={"labelSelector": f"kubernetes.io/service-name={options.service}", **parameters},
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
        )
        if response.status == 410:
            response.release()
            raise Gone
        response.raise_for_status()
        return response

    def _session(self) -> "_Session":
        return _Session(f"{self._options.account}/ca.crt")


class _Session:
    """A connection that trusts the cluster's authority, as its file says now."""

    def __init__(self, ca_path: str) -> None:
        self._ca_path = ca_path
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> aiohttp.ClientSession:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=self._ca_path)
        timeout = aiohttp.ClientTimeout(sock_connect=5.0, sock_read=WATCH_S + SILENCE_S, total=None)
        connector = aiohttp.TCPConnector(ssl=context, limit=2)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The readline of aiohttp refuses lines as long as a large slice."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise BadSlice(f"an event of more than {LINE_BYTES_MAX} bytes")
        for line in lines:
            if line.strip():
                yield line


def _event(line: bytes) -> tuple[str, Mapping[str, Any]]:
    """One event of a watch.

    Raises:
        Gone: it says so.
        BadSlice: it is an error of another kind, or nonsense.
    """
    try:
        event = json.loads(line)
        kind, found = str(event["type"]), event["object"]
        if kind == "ERROR":
            code, message = found.get("code"), found.get("message")
            if code == 410:
                raise Gone
            raise BadSlice(f"the watch ended: {code} {message}")
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            raise BadSlice(f"an event of type {kind[:40]!r}")
        str(found["metadata"]["resourceVersion"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BadSlice):
            raise
        raise BadSlice(f"not an event: {error!r}") from error
    return kind, found


def _url(environ: Mapping[str, str]) -> str:
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        problem = (
            "cluster.provider: kubernetes works in a pod only: KUBERNETES_SERVICE_HOST is not set"
        )
        raise ConfigError([problem])
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, TOKEN_BYTES_MAX).decode("ascii", "replace").strip()
    finally:
        os.close(fd)
