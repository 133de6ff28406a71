"""Publishes the metrics of a mount: to a file, on a port of the loopback, or both."""

import os
import socket
import threading

from hotshard.mount.files import Files
from hotshard.mount.loop import Loop
from hotshard.mount.metrics import render
from hotshard.mount.parts import Parts
from hotshard.mount.state import State

PERIOD_S = 5.0


class Publisher:
    """Tended by the reader's main thread."""

    def __init__(self, state: State, loop: Loop, parts: Parts, files: Files) -> None:
        self._plan = parts.plan
        self._state = state
        self._loop = loop
        self._parts = parts
        self._files = files
        self._next_s = 0.0
        if parts.plan.options.metrics_port is not None:
            self._listen(parts.plan.options.metrics_port)

    def tend(self, now_s: float) -> None:
        """Do what is due."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + PERIOD_S
        self._parts.contents.expire(now_s)
        if self._plan.options.metrics_file is not None:
            self._write(self._plan.options.metrics_file)

    def text(self) -> str:
        """The metrics now."""
        gauges: dict[tuple[str, ...], float] = {
            ("hotshard_mount_in_flight",): len(self._loop.in_flight),
            ("hotshard_mount_inodes",): len(self._parts.inodes),
            ("hotshard_mount_handles",): len(self._parts.handles),
            ("hotshard_mount_cached_files",): self._parts.contents.files,
            ("hotshard_mount_reader_restarts_total",): self._state.restarts,
            ("hotshard_mount_passthrough",): self._files.passthrough,
            **{(name,): value for name, value in self._parts.source.figures().items()},
            (
                "hotshard_mount_info",
                "mode",
                self._plan.options.mode,
                "target",
                self._plan.target,
                "uri",
                self._plan.uri,
            ): 1,
        }
        return render(self._loop.tallies, gauges)

    def _write(self, path: str) -> None:
        temporary = f"{path}.{os.getpid()}"
        try:
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(self.text())
            os.replace(temporary, path)
        except OSError:
            return  # metrics are no reason to fail; the file's age tells

    def _listen(self, port: int) -> None:
        server = socket.create_server(("127.0.0.1", port), reuse_port=True)
        threading.Thread(target=self._answer, args=(server,), name="metrics", daemon=True).start()

    def _answer(self, server: socket.socket) -> None:
        while True:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.settimeout(2.0)
                    connection.recv(4096)
                    body = self.text().encode()
                    head = (
                        "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n"
                    )
                    connection.sendall(head.encode() + body)
                except OSError:
                    continue
