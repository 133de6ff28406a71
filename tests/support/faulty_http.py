"""A scripted HTTP server that misbehaves as it is told: one S3 object behind a socket of bad habits.

Each request takes the next behaviour of `script`; when the script is used up, the server answers as S3
would. Every request head is kept in `requests`, so that a test sees what was on the wire.
"""

import contextlib
import re
import socket
import socketserver
import ssl
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Scripted:
    body: bytes
    etag: str = "0123456789abcdef"
    extra: dict[str, str] = field(default_factory=dict)
    script: deque["Behaviour"] = field(default_factory=deque)
    requests: list[Seen] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    """Set when the test is over: what waits for ever waits for this."""

    def head(self, seen: Seen, status: int, length: int, **headers: str) -> bytes:
        start, last = span(seen, len(self.body))
        sent = {"Content-Length": str(length), "ETag": f'"{self.etag}"', **self.extra}
        if status == 206:
            sent["Content-Range"] = f"bytes {start}-{last}/{len(self.body)}"
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value)
        return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode()


Behaviour = Callable[[Scripted, Seen, socket.socket], bool]
"""Answer one request; whether the connection stays open."""


def span(seen: Seen, size: int) -> tuple[int, int]:
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", seen.headers.get("range", ""))
    return (int(match[1]), min(int(match[2]), size - 1)) if match else (0, size - 1)


def _wanted(server: Scripted, seen: Seen) -> tuple[int, bytes]:
    start, last = span(seen, len(server.body))
    status = 206 if "range" in seen.headers else 200
    return status, server.body[start : last + 1]


def right(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    status, body = _wanted(server, seen)
    sock.sendall(server.head(seen, status, len(body)))
    if seen.method == "GET":
        sock.sendall(body)
    return True


def right_then_close(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    """As S3 does to connections it is tired of: without a word."""
    right(server, seen, sock)
    return False


def reset_mid_body(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    status, body = _wanted(server, seen)
    sock.sendall(server.head(seen, status, len(body)) + body[: len(body) // 2])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def short_body(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    status, body = _wanted(server, seen)
    sock.sendall(server.head(seen, status, len(body)) + body[:-1])
    return False


def shorter_than_asked(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    """Consistent in itself, but not what was asked for."""
    status, body = _wanted(server, seen)
    sock.sendall(server.head(seen, status, len(body) - 1) + body[:-1])
    return True


def long_body(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    right(server, seen, sock)
    sock.sendall(b"and more that nobody announced")
    return True


def other_range(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    status, body = _wanted(server, seen)
    shifted = f"bytes 1-{len(body)}/{len(server.body)}"
    sock.sendall(server.head(seen, status, len(body), Content_Range=shifted) + body)
    return True


def other_etag(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    status, body = _wanted(server, seen)
    sock.sendall(server.head(seen, status, len(body), ETag='"another"') + body)
    return True


def flipped_bit(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    status, body = _wanted(server, seen)
    sock.sendall(server.head(seen, status, len(body)) + bytes([body[0] ^ 1]) + body[1:])
    return True


def chunked(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    status, body = _wanted(server, seen)
    head = server.head(seen, status, len(body), Content_Length="", Transfer_Encoding="chunked")
    sock.sendall(head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
    return True


def garbage(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    sock.sendall(b"\x00\xff SSH-2.0-whatever\r\n\r\n")
    return False


def endless_headers(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        for number in range(100_000):
            sock.sendall(f"X-{number}: more and more and more of it\r\n".encode())
    return False


def silent(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    server.released.wait(60)
    return False


def drip(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    """Slow loris: a byte now and then, each before any single read times out."""
    status, body = _wanted(server, seen)
    with contextlib.suppress(OSError):
        sock.sendall(server.head(seen, status, len(body)))
        for number in range(len(body)):
            sock.sendall(body[number : number + 1])
            if server.released.wait(0.02):
                break
    return False


def close_at_once(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
    return False


def answer(status: int, code: str = "", region: str = "", **headers: str) -> Behaviour:
    """An error in S3's XML; with a region it says where the bucket is, as S3 does in two places."""
    more = f"<Region>{region}</Region>" if region else ""
    if region:
        headers["x_amz_bucket_region"] = region

    def behave(server: Scripted, seen: Seen, sock: socket.socket) -> bool:
        xml = f"<Error><Code>{code}</Code><Message>because</Message>{more}</Error>".encode()
        head = server.head(seen, status, len(xml), Content_Range="", **headers)
        sock.sendall(head + (xml if seen.method == "GET" else b""))
        return True

    return behave


class _Handler(socketserver.BaseRequestHandler):
    scripted: Scripted

    def handle(self) -> None:
        self.scripted.connections += 1
        with contextlib.suppress(ConnectionError):
            while seen := _request(self.request):
                self.scripted.requests.append(seen)
                script = self.scripted.script
                behave = script.popleft() if script else right
                if not behave(self.scripted, seen, self.request):
                    return


def _request(sock: socket.socket) -> Seen | None:
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = sock.recv(1)
        if not piece:
            return None
        data += piece
    first, *lines = data.decode("latin-1").strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return Seen(method, path, headers)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    tls: ssl.SSLContext | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls:
            with self.tls.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        else:
            super().finish_request(request, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that give up are what the tests are about."""


@contextlib.contextmanager
def scripted(
    body: bytes, *, tls: ssl.SSLContext | None = None, extra: dict[str, str] | None = None
) -> Iterator[Scripted]:
    """Serve one object on loopback."""
    state = Scripted(body, extra=extra or {})
    handler = type("Handler", (_Handler,), {"scripted": state})
    with _Server(("127.0.0.1", 0), handler) as server:
        server.tls = tls
        state.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
            thread.join()
