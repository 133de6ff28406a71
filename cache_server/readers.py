"""Where the readers of each object are, to read ahead of them."""

from cache_server.core.readahead import Streams
from cache_server.recent import Recent
from hotshard.core.objects import ObjectInfo

OBJECTS = 4096  # whose readers are remembered
WINDOW_BLOCKS_MAX = 8


class Readers:
    """The sequential streams in the objects read last."""

    def __init__(self, block_bytes: int) -> None:
        self._block_bytes = block_bytes
        self._streams: Recent[str, Streams] = Recent(OBJECTS)

    def ahead(self, info: ObjectInfo, start: int, stop: int) -> int:
        """Note that [start, stop) is read; up to where to read ahead, at least `stop`."""
        if info.size <= self._block_bytes:
            return stop
        streams = self._streams.get(info.uri)
        if streams is None:
            streams = Streams(self._block_bytes, WINDOW_BLOCKS_MAX * self._block_bytes)
            self._streams.put(info.uri, streams)
        return max(stop, min(streams.ask(start, stop), info.size))
