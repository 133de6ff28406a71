"""Members from the configuration."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from hotshard.core.members import Candidate


class StaticProvider:
    """A list that does not change."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._candidates = tuple(Candidate(address) for address in addresses)

    async def lists(self) -> AsyncGenerator[Sequence[Candidate], None]:
        """See provider.Provider."""
        yield self._candidates
        await asyncio.Event().wait()
