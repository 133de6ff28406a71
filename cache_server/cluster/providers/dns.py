"""Members from DNS: the addresses behind one name, as a headless service publishes them.

A headless service lists ready pods only, unless it says `publishNotReadyAddresses`, which it should: a
member that restarts is then found as soon as it answers.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from hotshard.core.members import Candidate

log = logging.getLogger(__name__)

RESOLVE_S = 5.0
Resolve = Callable[[str, int], Awaitable[Sequence[Any]]]


async def _getaddrinfo(host: str, port: int) -> Sequence[Any]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


class DnsProvider:
    """Asks again and again. An answer that is empty, or none at all, leaves the last one in force."""

    def __init__(
        self, host: str, port: int, refresh_s: float, resolve: Resolve = _getaddrinfo
    ) -> None:
        self._host = host
        self._port = port
        self._refresh_s = refresh_s
        self._resolve = resolve

    async def lists(self) -> AsyncGenerator[Sequence[Candidate], None]:
        """See provider.Provider."""
        last: list[str] = []
        failing = False
        while True:
            try:
                async with asyncio.timeout(RESOLVE_S):
                    found = _addresses(await self._resolve(self._host, self._port))
            except (OSError, UnicodeError) as error:  # a timeout is an OSError, too
                if not failing:
                    log.warning("%s cannot be resolved: %s", self._host, str(error) or "timeout")
                failing = True
            else:
                if failing:
                    log.info("%s is resolved again", self._host)
                failing = False
                if found and found != last:
                    last = found
                    yield [Candidate(address) for address in found]
            await asyncio.sleep(self._refresh_s)


def _addresses(found: Sequence[Any]) -> list[str]:
    """host:port of each, in order; an IPv6 host in brackets."""
    pairs = {(str(entry[4][0]), int(entry[4][1])) for entry in found}
    return sorted(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in pairs)
