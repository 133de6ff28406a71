"""An API server of Kubernetes, as far as one service's EndpointSlices go: HTTPS, tokens, list, watch.

It speaks the wire format of the real one: lists in pages with `continue`, one JSON object per line in a
watch, bookmarks, an ERROR event with a Status of code 410 for a version that is forgotten, 401 for a token
that is none. What it cannot do is fail on purpose in ways that the real one does not.
"""

import asyncio
import datetime
import ipaddress
import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAMESPACE = "ml"
SERVICE = "hotshard"
GROUP = "discovery.k8s.io/v1"


def endpoint(
    address: str,
    *,
    ready: bool | None = True,
    serving: bool | None = None,
    terminating: bool | None = None,
    zone: str = "eu-1a",
) -> dict[str, Any]:
    """One endpoint of a slice; what is None is left out, as the API may."""
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    return {
        "addresses": [address],
        "conditions": {name: value for name, value in conditions.items() if value is not None},
        "nodeName": f"node-{address}",
        "zone": zone,
        "targetRef": {"kind": "Pod", "name": f"hotshard-{address}", "namespace": NAMESPACE},
    }


def slice_of(name: str, endpoints: Sequence[dict[str, Any]], port: int = 7070) -> dict[str, Any]:
    """One EndpointSlice."""
    return {
        "apiVersion": GROUP,
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": SERVICE},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [
            {"name": "bulk", "port": port + 1, "protocol": "TCP"},
            {"name": "grpc", "port": port, "protocol": "TCP"},
        ],
    }


class KubeApi:
    """The server, and the pod's directory of the ServiceAccount."""

    def __init__(self, directory: Path, service: str = SERVICE) -> None:
        self.account = directory
        self._service = service
        self.lists = 0
        self.watches = 0
        self.page_slices = 500
        self.forget_pages = 0
        """So many lists lose their place between two pages, as they do when it takes too long."""
        self.cut_events = 0
        """So many events break off in the middle, and the connection with them."""
        self._token = ""
        self._slices: dict[str, dict[str, Any]] = {}
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._version = 1000
        self._forgotten = 0
        self._news = asyncio.Event()
        self._streams: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self._port = 0
        _write_certificate(directory)
        (directory / "namespace").write_text(NAMESPACE)
        self.rotate_token("token-1")

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    async def start(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.account / "ca.crt", self.account / "server.key")
        app = web.Application()
        app.router.add_get(f"/apis/{GROUP}/namespaces/{NAMESPACE}/endpointslices", self._get)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, "127.0.0.1", self._port, ssl_context=context, reuse_address=True
        )
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Be away; what it knows is kept."""
        self.break_streams()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    # -- what happens in the cluster -----------------------------------------------------------------

    def put(self, found: dict[str, Any]) -> None:
        """Create or replace a slice."""
        name = found["metadata"]["name"]
        self._event("MODIFIED" if name in self._slices else "ADDED", found)
        self._slices[name] = found

    def delete(self, name: str) -> None:
        self._event("DELETED", self._slices.pop(name))

    def bookmark(self) -> None:
        self._event("BOOKMARK", {"kind": "EndpointSlice", "apiVersion": GROUP, "metadata": {}})

    def compact(self) -> None:
        """Forget all versions up to now; whoever watches from one of them gets 410."""
        self._version += 10
        self._forgotten = self._version
        self._events.clear()

    def break_streams(self) -> None:
        """Cut every watch off, in the middle of the response."""
        for stream in self._streams:
            stream.cancel()

    def rotate_token(self, token: str) -> None:
        """As the kubelet does; the old one is good no longer."""
        (self.account / "token").write_text(token + "\n")
        self._token = token

    @property
    def watching(self) -> int:
        return len(self._streams)

    # -- the server ----------------------------------------------------------------------------------

    def _event(self, kind: str, found: dict[str, Any]) -> None:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        self._events.append(
            (self._version, {"type": kind, "object": json.loads(json.dumps(found))})
        )
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.json_response(_status(401, "Unauthorized"), status=401)
        if request.query.get("labelSelector") != f"kubernetes.io/service-name={self._service}":
            return web.json_response(_status(400, "BadRequest"), status=400)
        if request.query.get("watch"):
            return await self._watch(request)
        return self._list(request)

    def _list(self, request: web.Request) -> web.Response:
        self.lists += 1
        if request.query.get("continue") and self.forget_pages:
            self.forget_pages -= 1
            return web.json_response(_status(410, "Expired"), status=410)
        start = int(request.query.get("continue") or 0)
        limit = min(int(request.query.get("limit") or 500), self.page_slices)
        names = sorted(self._slices)
        metadata = {"resourceVersion": str(self._version)}
        if start + limit < len(names):
            metadata["continue"] = str(start + limit)
        items = [self._slices[name] for name in names[start : start + limit]]
        kind = {"kind": "EndpointSliceList", "apiVersion": GROUP}
        return web.json_response({**kind, "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        self.watches += 1
        version = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if version < self._forgotten:
            error = {"type": "ERROR", "object": _status(410, "Expired")}
            await response.write(json.dumps(error).encode() + b"\n")
            return response
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            async with asyncio.timeout(float(request.query["timeoutSeconds"])):
                while True:
                    news = self._news
                    for number, event in list(self._events):
                        if number > version:
                            line = json.dumps(event).encode() + b"\n"
                            if self.cut_events:
                                self.cut_events -= 1
                                await response.write(line[: len(line) // 2])
                                assert request.transport is not None
                                request.transport.close()
                                return response
                            version = number
                            await response.write(line)
                    await news.wait()
        except TimeoutError:
            return response
        finally:
            self._streams.discard(task)


def _status(code: int, reason: str) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
    }


def _write_certificate(directory: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "server.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
