"""The file systems this driver serves: for each its descriptors, its state, and the reader processes.

`mount.keeper.Keeper` is the policy of one mount; here it is driven for all of them, by one thread. Not
thread-safe: its owner has a lock.
"""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hotshard.mount import device
from hotshard.mount.config import Plan
from hotshard.mount.keeper import Keeper
from hotshard.mount.starting import Launch
from hotshard.mount.state import Incompatible, State

log = logging.getLogger(__name__)

SILENT_S = 2.0
"""Without a heartbeat for so long, a mount is not in order."""


@dataclass(slots=True)
class Served:
    """One of them."""

    name: str
    plan: Plan
    devices: list[int]
    state: State
    keeper: Keeper
    since_s: float

    @property
    def descriptors(self) -> list[int]:
        """All that a successor needs, the state last."""
        return [*self.devices, self.state.fd]

    def dead(self) -> bool:
        """Whether the kernel has ended the connection."""
        if not self.devices:  # given up
            return True
        return device.ended(self.devices[0])

    def silent_s(self) -> float:
        """For how long no reader has given a sign of life."""
        return time.monotonic() - max(self.since_s, self.state.heartbeat_ns / 1e9)

    def silent(self) -> bool:
        """Whether its reader does not answer now."""
        return self.dead() or self.silent_s() > SILENT_S


class ServedMounts:
    """By name."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._served: dict[str, Served] = {}

    def __iter__(self) -> Iterator[Served]:
        return iter(list(self._served.values()))

    def __len__(self) -> int:
        return len(self._served)

    def get(self, name: str) -> Served | None:
        """One of them; None: it is not served here."""
        return self._served.get(name)

    def start(self, name: str, plan: Plan, devices: list[int], state: State) -> Served:
        """Serve a mount; takes over the descriptors. Does not wait for its reader."""
        now_s = time.monotonic()
        keeper = Keeper(devices, state, plan, -1, self._launch)
        served = Served(name, plan, devices, state, keeper, now_s)
        self._served[name] = served
        served.keeper.tick(now_s)
        return served

    def resume(self, name: str, plan: Plan, descriptors: list[int]) -> Served | None:
        """Go on with a mount another driver has made; None: this program cannot."""
        *devices, state_fd = descriptors
        try:
            state = State(state_fd)
        except Incompatible as error:
            log.error("%s cannot be served any longer: %s", plan.uri, error)  # noqa: TRY400
            _close(descriptors)
            return None
        state.add_restart()
        served = self.start(name, plan, devices, state)
        if served.dead():
            self.drop(name)
            return None
        return served

    def tend(self) -> list[str]:
        """Look after every mount; gives the names of those that are over."""
        now_s = time.monotonic()
        return [name for name, each in self._served.items() if not each.keeper.tick(now_s)]

    def watched(self) -> list[int]:
        """Descriptors that become readable when there is something to tend."""
        return [fd for each in self._served.values() for fd in each.keeper.watched()]

    def drop(self, name: str) -> None:
        """Serve it no longer: readers end at once, descriptors are closed."""
        served = self._served.pop(name, None)
        if served is not None:
            served.keeper.kill()
            served.keeper.close()
            served.state.map.close()
            _close(served.descriptors)

    def leave(self) -> None:
        """Have every reader finish what it has begun, so that others can go on; waits, within limits."""
        now_s = time.monotonic()
        for served in self._served.values():
            served.keeper.leave(now_s)
        limit_s = max((s.plan.options.drain_timeout_s for s in self._served.values()), default=0.0)
        while self._served and time.monotonic() < now_s + limit_s + 3.0:
            for name in self.tend():
                self.drop(name)
            time.sleep(0.01)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
