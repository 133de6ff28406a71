"""What is asked of an origin that is read without a server. `posix` and `s3` are the two there are."""

from typing import Protocol

from hotshard.calls import Page
from hotshard.core.errors import ServerUnavailable
from hotshard.core.objects import ObjectInfo
from hotshard.core.uri import Address


class NotHere(ServerUnavailable):
    """This process cannot read that origin: it is not mounted here, or there are no credentials.

    So it says nothing of the object itself; only the server could.
    """


class Origin(Protocol):
    """An origin. Used by many threads at once; raises only HotshardError."""

    def stat(self, address: Address) -> ObjectInfo:
        """Describe the current version of an object."""

    def page(self, prefix: Address, token: str, page_size: int, *, recursive: bool) -> Page:
        """A page of what begins with `prefix`, as the server would list it."""

    def read_into(self, info: ObjectInfo, offset: int, view: memoryview) -> None:
        """Fill `view` with the bytes from `offset` on, which the object has.

        Raises:
            StaleObject: the origin holds another version by now.
        """
