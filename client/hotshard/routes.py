"""The ways from a client to its server, with the origin behind it unless that is not wanted.

Loads gRPC only when the server is reached by it.
"""

import os
from dataclasses import replace

from hotshard.options import Options, resolve
from hotshard.transports import AsyncTransport, Transport


def blocking_transport(options: Options) -> Transport:
    """For threads.

    Raises:
        ServerUnavailable: it is not known where to look for a server.
        InvalidRequest: the address is none.
    """
    kind, place = resolve(options, os.environ)
    server = _server(kind, place, options)
    if options.direct == "never":
        return server
    from hotshard.direct.answers import answers
    from hotshard.direct.fallback import FallbackTransport

    probe = _probe(kind, place, options)
    return FallbackTransport(server, probe, answers(options.timeout_s), options.direct_after_s)


def async_transport(options: Options) -> AsyncTransport:
    """For an event loop; raises as `blocking_transport`."""
    kind, place = resolve(options, os.environ)
    server = _async_server(kind, place, options)
    if options.direct == "never":
        return server
    from hotshard.direct.answers import answers
    from hotshard.direct.fallback_async import AsyncFallbackTransport

    probe = _probe(kind, place, options)
    return AsyncFallbackTransport(server, probe, answers(options.timeout_s), options.direct_after_s)


def _server(kind: str, place: str, options: Options) -> Transport:
    if kind == "unix":
        from hotshard.local import LocalTransport

        return LocalTransport(place, options.timeout_s)
    from hotshard.remote import RemoteTransport

    return RemoteTransport(place, options)


def _async_server(kind: str, place: str, options: Options) -> AsyncTransport:
    if kind == "unix":
        from hotshard.local_async import AsyncLocalTransport

        return AsyncLocalTransport(place, options.timeout_s)
    from hotshard.remote_async import AsyncRemoteTransport

    return AsyncRemoteTransport(place, options)


def _probe(kind: str, place: str, options: Options) -> Transport:
    """For a short look whether the server is there."""
    from hotshard.direct.fallback import PROBE_TIMEOUT_S

    if kind == "unix":
        from hotshard.local import LocalTransport

        return LocalTransport(place, PROBE_TIMEOUT_S, grace_s=0.0)
    return _server(kind, place, replace(options, timeout_s=PROBE_TIMEOUT_S))
