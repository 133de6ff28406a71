"""Other things that people put between a bucket and their readers, as servers of this row's own.

nginx with proxy_cache in front of the bucket, and Redis as the stand-in for ElastiCache: both on free
ports of 127.0.0.1, with what they keep below one directory, and ended with the row.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.results import BenchError
from hotshard.cli.ports import free_ports

_START_S = 20.0
_STOP_S = 10.0
# Keep-alive both ways, sendfile, descriptors kept open, one fetch per object; as its manual advises.
_NGINX = """
daemon off; user root; worker_processes auto; pid {directory}/pid; error_log {directory}/error.log;
worker_rlimit_nofile 8192;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; client_max_body_size 0;
  open_file_cache max=20000 inactive=1h; open_file_cache_valid 1h;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  proxy_cache_path {directory}/cache levels=2 keys_zone=c:64m max_size=50g inactive=1h use_temp_path=off;
  upstream bucket {{ server {bucket}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://bucket; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $http_host; proxy_cache c; proxy_cache_key $uri;
      proxy_cache_valid 200 1h; proxy_cache_lock on; proxy_buffering on; proxy_buffers 64 128k;
    }}
  }}
}}
"""


def installed(program: str) -> str | None:
    """Where a program is."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def nginx(endpoint_url: str, directory: str) -> Iterator[str]:
    """A caching proxy in front of an S3 endpoint; its own endpoint url.

    Requests are signed for the proxy's address, which it hands on.
    """
    os.makedirs(directory)
    (port,) = free_ports(1)
    bucket = endpoint_url.removeprefix("http://")
    path = os.path.join(directory, "nginx.conf")
    with open(path, "w", encoding="utf-8") as file:
        file.write(_NGINX.format(directory=directory, bucket=bucket, port=port))
    with _serving("nginx", ["-e", f"{directory}/error.log", "-c", path], port, directory):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def redis(directory: str) -> Iterator[str]:
    """An empty Redis that keeps everything in memory and writes nothing; its url."""
    os.makedirs(directory)
    (port,) = free_ports(1)
    settings = [
        "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
        "--dir", directory, "--io-threads", "2",
    ]  # fmt: skip
    with _serving("redis-server", settings, port, directory):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def _serving(name: str, arguments: Sequence[str], port: int, directory: str) -> Iterator[None]:
    program = installed(name)
    if program is None:
        raise BenchError(f"{name} is not installed")
    log_path = os.path.join(directory, "log")
    with open(log_path, "wb") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log)
    try:
        give_up_s = time.monotonic() + _START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > give_up_s:
                with open(log_path, encoding="utf-8", errors="replace") as text:
                    raise BenchError(f"{name} does not start: {text.read()[-2000:]}")
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 0.5):
            return True
    except OSError:
        return False
