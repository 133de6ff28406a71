"""How far to read ahead of a reader, and when to finish a shard nobody asked for as a whole.

Readers of one object are told apart by where they read: a request that starts where an earlier one ended
(or a little beyond) continues that stream, any other starts a new one. A stream's window starts at one
block when it begins at the object's start, and doubles with each continuation; a request in the middle
starts with no window, so random reads fetch what they ask for and no more. Several streams per object
are remembered, because the workers of a training job read one file at several places at once.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class _Stream:
    """A reader that goes forward: where its last request ended, and up to where we read ahead for it."""

    position: int
    reach: int
    window: int


class Streams:
    """The sequential streams seen in one object; all figures are bytes of the object."""

    __slots__ = ("_block_bytes", "_streams", "_streams_max", "_window_max")

    def __init__(self, block_bytes: int, window_max: int, streams_max: int = 16) -> None:
        self._block_bytes = block_bytes
        self._window_max = window_max
        self._streams_max = streams_max
        self._streams: list[_Stream] = []  # the least recently used one first

    def ask(self, start: int, stop: int) -> int:
        """Note a request for [start, stop); return up to where to read ahead (at least `stop`)."""
        stream = self._continued(start)
        if stream is None:
            window = self._block_bytes if start == 0 else 0
            stream = _Stream(stop, stop + window, window)
        else:
            stream.window = min(self._window_max, max(self._block_bytes, 2 * stream.window))
            stream.position = stop
            stream.reach = max(stream.reach, stop + stream.window)
        self._streams.append(stream)
        del self._streams[: -self._streams_max]
        return stop + stream.window

    def _continued(self, start: int) -> _Stream | None:
        """Take out the stream that a request at `start` goes on with, if any.

        A reader asks again only past what it was given, which reaches to where we read ahead; it may
        overlap its last block or skip a small hole.
        """
        if start == 0:
            return None
        slack = self._block_bytes
        for i in reversed(range(len(self._streams))):
            if self._streams[i].position - slack <= start <= self._streams[i].reach + slack:
                return self._streams.pop(i)
        return None


def worth_finishing(present: int, total: int) -> bool:
    """Whether to fetch the rest of a shard of which `present` of `total` blocks are there.

    From half on, finishing costs at most as much again as was asked for, and a sealed shard is worth
    more than a partial one: its descriptor is good for ever, and it survives a restart.
    """
    return 2 * present >= total
