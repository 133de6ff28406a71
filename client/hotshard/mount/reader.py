"""The process that serves a mount. It can be killed at any moment: what must not be lost is in `state`.

    python -m hotshard.mount.reader DEVICES STATE CONTROL PLAN

DEVICES are descriptors of one FUSE connection, STATE the memory file, CONTROL the socket to the keeper:
it says "ready" there, and stops when told to. When the keeper dies, the reader starts a new one and goes
on; in a supervised mount it ends, and leaves what it has begun to the reader that comes next.

Order at the start: map the state, wait until no other reader has it, have unanswered requests sent again,
serve. What takes time to load (protobuf) is loaded while what is known is served already, or while a
predecessor serves; "ready" is said when it is loaded and what waited for it has been answered.
"""

import contextlib
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from typing import NoReturn

from hotshard.mount import codec, logs
from hotshard.mount.config import Plan
from hotshard.mount.contents import Contents
from hotshard.mount.directories import Directories, Freshness
from hotshard.mount.files import Files
from hotshard.mount.filesystem import Filesystem
from hotshard.mount.handles import HandleTable, Mode
from hotshard.mount.inodes import InodeTable
from hotshard.mount.late import LateSource, preload
from hotshard.mount.loop import TEND_PERIOD_S, Loop
from hotshard.mount.parts import Parts
from hotshard.mount.pool import Pool
from hotshard.mount.publish import Publisher
from hotshard.mount.session import Agreement, InFlight
from hotshard.mount.starting import START_PERIOD_S, start_keeper
from hotshard.mount.state import HANDLES, Arena, Claim, Incompatible, RequestSlots, State

log = logging.getLogger(__name__)

EXIT_INCOMPATIBLE = 3
LISTING_THREADS = 8
CLAIM_PERIOD_S = 0.005
ARRIVAL_PERIOD_S = 0.01
ARRIVAL_MAX_S = 2.0
LOADED = b"loaded"
READY = b"ready"
STANDBY = b"standby"
STOP = b"stop"
GO = b"go"


class Arrival:
    """When a new reader is there: it has loaded everything, and answered what waited until then.

    Before that, to take it for one that serves would be wrong: who kills it then, because the next one is
    at hand, makes the same requests wait once more. A server that is away does not keep it from arriving.
    """

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._waiting: set[int] | None = None
        self._limit_s = 0.0
        self._loading = threading.Thread(target=preload, name="preload", daemon=True)
        self._loading.start()

    def complete(self, now_s: float) -> bool:
        """Whether it is there; to be asked again and again."""
        if self._loading.is_alive():
            return False
        if self._waiting is None:
            self._waiting = set(self._in_flight.uniques())
            self._limit_s = now_s + ARRIVAL_MAX_S
        self._waiting.intersection_update(self._in_flight.uniques())
        return not self._waiting or now_s >= self._limit_s


class Reader:
    """One mount, served by this process."""

    def __init__(self, devices: list[int], state: State, plan: Plan) -> None:
        self._devices = devices
        self._state = state
        self._plan = plan
        self._stopping = False
        self._abandoned = False

    def run(self, control: socket.socket) -> None:
        """Serve until the mount is gone, or the keeper says stop."""
        loop, publisher = self._begin()
        arrival = Arrival(loop.in_flight)
        control.settimeout(0)
        said = False
        while not loop.ended.is_set():
            now_s = time.monotonic()
            if not said and arrival.complete(now_s):
                said = True
                _say(control, READY)
            if loop.tend(now_s):
                self._state.beat(time.monotonic_ns())
            publisher.tend(now_s)
            period_s = TEND_PERIOD_S if said else ARRIVAL_PERIOD_S
            if select.select([control], [], [], period_s)[0]:
                control = self._listen(control)
            if self._stopping:
                self._drain(loop)
            if self._stopping or self._abandoned:
                return
        self._state.end()

    def _begin(self) -> tuple[Loop, Publisher]:
        plan, options = self._plan, self._plan.options
        arena = Arena(self._state.fd)
        inodes = InodeTable(arena.release)
        inodes.restore(arena.restore())
        handles = HandleTable(self._state.map, self._state.handles_at, HANDLES)
        _pin(inodes, handles)
        agreement = Agreement.from_reply(self._state.init_reply, no_open=options.mode == "no_open")
        source = LateSource(plan)
        directories = Directories(
            source,
            plan.uri,
            inodes,
            arena,
            Freshness(options.ttl_s, options.immutable, options.list_timeout_s),
            time.monotonic,
        )
        listing_pool = Pool(LISTING_THREADS)
        directories.spawn = listing_pool.submit
        contents = Contents(min(options.files_max, _files_limit() // 2))
        parts = Parts(plan, source, inodes, handles, directories, contents)
        files = Files(parts, self._devices[0], agreement)
        filesystem = Filesystem(parts, files)
        slots = RequestSlots(self._state)
        loop = Loop(self._devices, slots, filesystem, options.workers)
        publisher = Publisher(self._state, loop, parts, files)
        self._recover(agreement, slots, loop)
        loop.start()
        return loop, publisher

    def _recover(self, agreement: Agreement, slots: RequestSlots, loop: Loop) -> None:
        """Have what a dead reader left unanswered answered by this one."""
        if agreement.resend:
            slots.release_all()
            os.write(self._devices[0], codec.notify_resend_bytes())
            return
        count = loop.replay()
        self._state.add_resends(count)

    def _listen(self, control: socket.socket) -> socket.socket:
        try:
            word = control.recv(64)
        except OSError:
            word = b""
        if word == STOP:
            self._stopping = True
        elif not word and self._plan.supervised:
            self._abandoned = True
        elif not word and not self._stopping:
            log.error("the keeper is gone; starting another")
            try:
                control = start_keeper(self._devices, self._state, self._plan)
            except OSError as error:
                log.error("it cannot be started: %s", error)  # noqa: TRY400
                time.sleep(START_PERIOD_S)  # the line to the old one keeps saying that it is gone
            control.settimeout(0)
        return control

    def _drain(self, loop: Loop) -> None:
        """Finish what has been begun, within limits; what is left the next reader carries out again."""
        give_up_s = time.monotonic() + self._plan.options.drain_timeout_s
        while len(loop.in_flight) and time.monotonic() < give_up_s:
            loop.tend(time.monotonic())
            time.sleep(0.005)


def _pin(inodes: InodeTable, handles: HandleTable) -> None:
    """Keep the listings that open directory handles read; let go of the rest."""
    for handle in handles:
        if handle.mode is Mode.DIRECTORY:
            listing = inodes.listing(handle.node)
            if listing is not None:
                inodes.pin(listing)
    inodes.settle_all()


def _files_limit() -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard not in {soft, resource.RLIM_INFINITY}:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def _say(control: socket.socket, word: bytes) -> None:
    """Tell the keeper; that it has died is found out by listening to it, and then another is started."""
    with contextlib.suppress(OSError):
        control.send(word)


def _wait_for(claim: Claim, control: socket.socket) -> bool:
    """Until the predecessor's process is gone; False: we are not wanted any more.

    Usually it is gone already. It may live on for a while in another container, which is being replaced.
    """
    if claim.take():
        return True
    preload()
    _say(control, STANDBY)
    while not claim.take():
        if select.select([control], [], [], CLAIM_PERIOD_S)[0]:
            return False
    return True


def serve(devices: list[int], state_fd: int, control: socket.socket, plan: Plan) -> int:
    """Be the reader of a mount; the exit code. There is one for a process, in its main thread."""
    logs.set_up("hotshard-mount")
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # a ^C for a foreground mount is the keeper's to handle
    # Keepers are all it ever starts: the kernel collects those that die.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.setswitchinterval(0.001)
    threading.stack_size(1 << 20)
    try:
        state = State(state_fd)
    except Incompatible as error:
        log.error("%s", error)  # noqa: TRY400
        return EXIT_INCOMPATIBLE
    _say(control, LOADED)
    if not select.select([control], [], [], 0)[0]:
        preload()  # a predecessor serves still
    if control.recv(16) != GO or not _wait_for(Claim(state.fd), control):
        return 0
    Reader(devices, state, plan).run(control)
    return 0


def end(code: int) -> NoReturn:
    """End the process: threads may be inside the kernel; nothing is left to clean up."""
    logging.shutdown()
    os._exit(code)


def main(argv: list[str]) -> int:
    """Entry point."""
    devices = [int(text) for text in argv[1].split(",")]
    control = socket.socket(fileno=int(argv[3]))
    return serve(devices, int(argv[2]), control, Plan.from_json(argv[4]))


if __name__ == "__main__":
    end(main(sys.argv))
