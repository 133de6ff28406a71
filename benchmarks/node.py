"""A real cache server of its own, as a child process (hotshard.cli.cache_process), for one row.

What benchmarks want beyond any such server: a bulk port, a quiet log, a disk that is not theirs alone,
faults put into it on purpose, and an error when it died on the way or did not stop when asked.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.results import BenchError
from benchmarks.sabotage import Sabotage
from hotshard.cli.cache_process import SERVER, CacheProcess, CacheProcessError
from hotshard.cli.ports import free_ports

_READY_S = 120.0  # a million shards on a busy machine
_STOP_S = 30.0
_FLOOR = "2GiB"
_RUN = "import runpy; runpy.run_module('cache_server', run_name='__main__', alter_sys=True)"
_SPOILED = {
    Sabotage.FAT: "ballast = bytes([1]) * (400 << 20);" + _RUN,
    Sabotage.LRU: (
        "import cache_server.sources as made; from benchmarks.policy.others import Lru;"
        "made.DatasetPolicy = lambda **_: Lru();" + _RUN
    ),
}


class Node(CacheProcess):
    """A server, with the address of its bulk port."""

    def __init__(
        self,
        directory: str,
        origins: Sequence[Mapping[str, object]],
        settings: Mapping[str, object],
        *,
        environment: Mapping[str, str] | None,
        program: Sequence[str],
    ) -> None:
        self.bulk = f"127.0.0.1:{free_ports(1)[0]}"
        document = {
            "origins": list(origins),
            "bulk": {"listen": self.bulk},
            "log": {"level": "warning"},
            "free_space_floor": _FLOOR,  # the disk is not ours alone, and what we write goes soon
            **settings,
        }
        super().__init__(directory, document, environment=environment, program=program)


@contextlib.contextmanager
def cache_node(
    directory: str,
    origins: Sequence[Mapping[str, object]],
    *,
    environment: Mapping[str, str] | None = None,
    spoiled: Sabotage = Sabotage.NONE,
    before: str = "",
    **settings: object,
) -> Iterator[Node]:
    """Start a server over some origins, with further configuration keys; stop it at the end.

    Args:
        directory: for everything it has.
        origins: as configured.
        environment: added to ours.
        spoiled: what is wrong with the server; most kinds of sabotage leave it alone.
        before: Python statements that it runs before it starts, ended by ";".
        settings: other keys of the configuration; some have defaults here.

    Raises:
        BenchError: it does not come up, dies, or does not stop when asked; with the end of its log.
    """
    code = _SPOILED.get(spoiled, before and before + _RUN)
    program = ("-c", code) if code else SERVER
    node = Node(directory, origins, settings, environment=environment, program=program)
    try:
        node.start(_READY_S)
    except CacheProcessError as error:
        raise BenchError(str(error)) from error
    try:
        yield node
    except BaseException:
        node.stop()  # that it would not stop is not the news now
        raise
    if node.exit_code is not None:
        raise BenchError(f"the cache server died:\n{node.log_tail()}")
    node.stop(_STOP_S)
    if node.exit_code != 0:
        raise BenchError(
            f"the cache server ended with {node.exit_code} when asked to stop, of"
            f" {_STOP_S:g} s that it has for that:\n{node.log_tail()}"
        )
