"""Objects of S3, read by obstore (the extra hotshard[direct]) with the credentials of this process.

Credentials, region and endpoint come from where obstore looks for them: the AWS_ variables, a web
identity, EKS Pod Identity, ECS, the instance. Nothing is loaded before the first call. A key with an
empty part ("a//b") cannot be named to obstore, so only a server can read it.
"""

import importlib
import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hotshard.calls import Page, Prefix
from hotshard.core.errors import NotFound, OriginUnavailable, PermissionDenied, StaleObject
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import Address, parse
from hotshard.direct.origin import NotHere

PAGE_ENTRIES = 1000
_CONNECT_TIMEOUT_S = 3
_RETRIES = 2
T = TypeVar("T")


class S3Objects:
    """The buckets that this process may read."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._stores: dict[str, Any] = {}
        self._pid = 0

    def stat(self, address: Address) -> ObjectInfo:
        """Describe an object."""
        if address.is_prefix:
            raise NotFound(f"{address} names a prefix, not an object", uri=address.uri)
        meta = self._ask(address, lambda obs, store: obs.head(store, address.key))
        return _info(address.bucket, meta)

    def page(self, prefix: Address, token: str, page_size: int, *, recursive: bool) -> Page:
        """A page of what begins with `prefix`."""
        size = page_size or PAGE_ENTRIES
        if recursive:
            return self._keys(prefix, token, size)
        return self._directory(prefix, token, size)

    def read_into(self, info: ObjectInfo, offset: int, view: memoryview) -> None:
        """Copy a range of exactly that version."""
        address = parse(info.uri)
        options = {"if_match": f'"{info.version}"', "range": (offset, offset + len(view))}

        def get(obs: Any, store: Any) -> Any:
            result = obs.get(store, address.key, options=options)
            return result.meta, result.bytes()

        try:
            meta, data = self._ask(address, get)
        except NotFound as error:
            raise StaleObject(f"{info.uri} changed at the origin", uri=info.uri) from error
        if _version(meta) != info.version:  # it ignored If-Match
            raise StaleObject(f"{info.uri} changed at the origin", uri=info.uri)
        if len(data) != len(view):
            raise OriginUnavailable(
                f"{info.uri}: {len(data)} bytes came instead of {len(view)}", uri=info.uri
            )
        view[:] = data

    def _keys(self, prefix: Address, token: str, size: int) -> Page:
        # obstore takes whole path parts as a prefix; the rest is compared here.
        parent, start = prefix.key.rpartition("/")[0], prefix.key

        def first(obs: Any, store: Any) -> list[Any]:
            offset = {"offset": token} if token else {}
            found: list[Any] = []
            for chunk in obs.list(store, parent or None, chunk_size=PAGE_ENTRIES, **offset):
                found += [meta for meta in chunk if meta["path"].startswith(start)]
                if len(found) >= size:
                    break
            return found

        found = self._ask(prefix, first)
        page = [_info(prefix.bucket, meta) for meta in found[:size]]
        return Page(page, [], found[size - 1]["path"] if len(found) >= size else "")

    def _directory(self, prefix: Address, token: str, size: int) -> Page:
        parent, start, base = prefix.key.rpartition("/")[0], prefix.key, f"s3://{prefix.bucket}/"
        found = self._ask(prefix, lambda obs, store: obs.list_with_delimiter(store, parent or None))
        names: dict[str, Any] = {
            meta["path"]: meta for meta in found["objects"] if meta["path"].startswith(start)
        }
        names |= {f"{fold}/": None for fold in found["common_prefixes"] if fold.startswith(start)}
        names.pop(start, None)
        left = sorted(name for name in names if name > token)
        shown = left[:size]
        return Page(
            [_info(prefix.bucket, names[name]) for name in shown if names[name] is not None],
            [Prefix(base + name) for name in shown if names[name] is None],
            shown[-1] if len(left) > size else "",
        )

    def _ask(self, address: Address, request: Callable[[Any, Any], T]) -> T:
        obs, store = self._store(address)
        kinds = importlib.import_module("obstore.exceptions")
        try:
            return request(obs, store)
        except FileNotFoundError as error:
            raise NotFound(f"no such object: {address}", uri=address.uri) from error
        except kinds.PreconditionError as error:
            raise StaleObject(f"{address} changed at the origin", uri=address.uri) from error
        except kinds.UnauthenticatedError as error:
            raise NotHere(f"no credentials for {address}", uri=address.uri) from error
        except kinds.PermissionDeniedError as error:
            raise PermissionDenied(f"S3 denied {address}: {_first(error)}") from error
        except ValueError as error:  # a key that obstore cannot name
            raise NotHere(f"{address}: {_first(error)}", uri=address.uri) from error
        except kinds.BaseError as error:
            text = _first(error)
            if "169.254." in text or "credential" in text.lower():  # it looked for some in vain
                raise NotHere(f"no credentials for S3 ({text})", uri=address.uri) from error
            raise OriginUnavailable(f"{address}: {text}", uri=address.uri) from error

    def _store(self, address: Address) -> tuple[Any, Any]:
        try:
            obs = importlib.import_module("obstore")
            stores = importlib.import_module("obstore.store")
        except ImportError as error:
            raise NotHere(
                "reading S3 without a cache server needs the extra hotshard[direct]",
                uri=address.uri,
            ) from error
        with self._lock:
            if self._pid != os.getpid():  # its threads did not come along
                self._pid, self._stores = os.getpid(), {}
            store = self._stores.get(address.bucket)
            if store is None:
                store = self._stores[address.bucket] = stores.S3Store(
                    address.bucket,
                    client_options={
                        "allow_http": True,  # an endpoint of http:// is somebody's wish
                        "connect_timeout": f"{_CONNECT_TIMEOUT_S}s",
                        "timeout": f"{max(1, int(self._timeout_s))}s",
                    },
                    retry_config={
                        "max_retries": _RETRIES,
                        "retry_timeout": timedelta(seconds=self._timeout_s),
                    },
                )
        return obs, store


def _info(bucket: str, meta: Any) -> ObjectInfo:
    modified: datetime = meta["last_modified"]
    return ObjectInfo(
        f"s3://{bucket}/{meta['path']}",
        _version(meta),
        meta["size"],
        int(modified.timestamp()) * 1_000_000_000,
    )


def _version(meta: Any) -> str:
    return (meta["e_tag"] or "").removeprefix("W/").strip('"')


def _first(error: Exception) -> str:
    """The first line of a message: what follows is the inside of the library."""
    return str(error).partition("\n")[0][:300]
