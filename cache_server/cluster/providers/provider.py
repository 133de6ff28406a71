"""What a provider of members is."""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from hotshard.core.members import Candidate


class Provider(Protocol):
    """Says where members may be. Who is really there is found out by asking them."""

    def lists(self) -> AsyncIterator[Sequence[Candidate]]:
        """The whole list, now and at each change; never ends.

        A source that cannot be asked is no change: the last list holds.
        """
