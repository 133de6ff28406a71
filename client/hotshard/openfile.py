"""An open file descriptor that closes when nobody uses it any more.

Readers hold a reference to the OpenFile while they call preadv on its number. A cache that drops its
own reference therefore never closes, let alone reuses, a number another thread is reading from.
"""

import os


class OpenFile:
    """Owns one descriptor."""

    __slots__ = ("__weakref__", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __del__(self) -> None:
        os.close(self.fd)
