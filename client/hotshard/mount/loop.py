"""Takes requests from the kernel, has them answered, and sees to it that every one is answered in time.

One thread for each descriptor reads requests and answers what needs no waiting. The rest goes to a pool
of workers, recorded in `InFlight`; whoever takes it out of there first answers: the worker, or `tend`,
when its deadline has passed or its caller is being killed. A handler that raises anything at all costs
one EIO and a log line.

Where a request is read and until it is answered, its bytes lie in a slot of the shared state: should this
process die, the next one finds them there (or has the kernel send them again).
"""

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hotshard.mount import abi, codec
from hotshard.mount.answers import Answer, Later, Payload, Refusal, Task
from hotshard.mount.codec import OUT_HEADER_BYTES, BadRequest, Request
from hotshard.mount.filesystem import Filesystem
from hotshard.mount.metrics import Tally
from hotshard.mount.pool import Pool
from hotshard.mount.session import InFlight, Pending
from hotshard.mount.state import RequestSlots

log = logging.getLogger(__name__)

READ_BYTES = 1 << 20
TEND_PERIOD_S = 0.25
STUCK_S = 5.0  # a thread that answers from memory takes microseconds
UNKNOWN_CALLER_S = 5.0  # after a signal, when we cannot see whether its caller is dying
_AGAIN = frozenset({errno.ENOENT, errno.EINTR, errno.EAGAIN})
_READ_BYTES = ("hotshard_mount_read_bytes_total",)
_RESENT = ("hotshard_mount_resent_requests_total",)
_OPENS = frozenset({abi.Op.OPEN, abi.Op.OPENDIR})
_pack_head = abi.OUT_HEADER.pack


@dataclass(slots=True)
class _Desk:
    """What one thread has to itself."""

    tally: Tally = field(default_factory=Tally)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_BYTES)))
    busy_since_s: float = 0.0


class Loop:
    """Serves one mount with the given descriptors."""

    def __init__(
        self, devices: list[int], slots: RequestSlots, filesystem: Filesystem, workers: int
    ) -> None:
        self._devices = devices
        self._slots = slots
        self._filesystem = filesystem
        self._pool = Pool(workers)
        self._local = threading.local()
        self._desks: list[_Desk] = []
        self._replayed: set[int] = set()
        self.in_flight = InFlight()
        self.ended = threading.Event()
        """The file system is unmounted, or its connection aborted."""

    @property
    def tallies(self) -> list[Tally]:
        """The counts of all threads."""
        return [desk.tally for desk in self._desks]

    def start(self) -> None:
        """Begin to serve."""
        for index in range(len(self._devices)):
            threading.Thread(
                target=self._serve, args=(index,), name=f"fuse-{index}", daemon=True
            ).start()

    def replay(self) -> int:
        """Carry out what a dead process had read and not answered; for kernels without resend."""
        left_over = self._slots.left_over()
        for slot, device, raw in left_over:
            self._replayed.add(abi.IN_HEADER.unpack_from(raw)[2])
            if device < len(self._devices):
                self._take(raw, device, slot, self._desk())
        return len(left_over)

    def tend(self, now_s: float) -> bool:
        """Answer what is overdue; False: a thread is stuck. To be called every TEND_PERIOD_S."""
        for pending in self.in_flight.expired(now_s):
            log.error(
                "%s of node %d: no answer within %.0f s",
                pending.request.name, pending.request.node, pending.deadline_s - pending.started_s,
            )  # fmt: skip
            self._finish(pending, errno.EIO)
        for pending in self.in_flight.interrupted():
            waited_s = now_s - (pending.interrupted_s or now_s)
            if _dying(pending.request.pid, waited_s) and self.in_flight.take(
                pending.request.unique
            ):
                self._finish(pending, errno.EINTR)
        return all(
            not desk.busy_since_s or now_s - desk.busy_since_s < STUCK_S for desk in self._desks
        )

    # -- reading --------------------------------------------------------------------------------

    def _serve(self, device: int) -> None:
        fd = self._devices[device]
        desk = self._desk()
        slot = self._acquire(device)
        view = self._slots.view(slot)
        while True:
            try:
                count = os.readv(fd, (view,))
            except OSError as error:
                if error.errno in _AGAIN:
                    continue
                if error.errno not in {errno.ENODEV, errno.ECONNABORTED}:
                    log.exception("reading /dev/fuse")
                self.ended.set()
                return
            if self._take(bytes(view[:count]), device, slot, desk):
                continue
            slot = self._acquire(device)
            view = self._slots.view(slot)

    def _take(self, raw: bytes, device: int, slot: int, desk: _Desk) -> bool:
        """Deal with a request; True: it is answered and its slot free again."""
        started_s = desk.busy_since_s = time.monotonic()
        try:
            request = codec.parse(raw)
        except BadRequest as error:
            log.error("a request that makes no sense: %s", error)  # noqa: TRY400
            if error.unique:
                self._send(device, codec.error_bytes(error.unique, errno.EIO))
            self._slots.clear(slot)
            desk.busy_since_s = 0.0
            return True
        if request.opcode in codec.SILENT:
            # Carried out twice these would do harm, not at all only cost memory.
            self._slots.clear(slot)
        answer = self._answer(request, desk, started_s)
        desk.busy_since_s = 0.0
        if isinstance(answer, Later):
            pending = Pending(request, device, slot, started_s, started_s + answer.timeout_s)
            self.in_flight.add(pending)
            self._pool.submit(lambda: self._work(pending, answer.run))
            return False
        self._reply(request, device, answer, desk, started_s)
        self._slots.clear(slot)
        return True

    def _answer(self, request: Request, desk: _Desk, now_s: float) -> Answer | int:
        """What the file system says; an int is an errno."""
        try:
            if request.opcode == abi.Op.INTERRUPT:
                self.in_flight.interrupt(request.body.unique, now_s)
                return None
            return self._filesystem.handle(request, Task(desk.buffer, desk.tally, now_s))
        except Refusal as refusal:
            return refusal.errno
        except Exception:
            log.exception("%s of node %d", request.name, request.node)
            return errno.EIO

    def _work(self, pending: Pending, run: Callable[[Request, Task], Payload]) -> None:
        request, desk = pending.request, self._desk()
        answer: Payload | int
        if request.unique not in self.in_flight:
            return
        try:
            answer = run(request, Task(desk.buffer, desk.tally, pending.deadline_s))
        except Refusal as refusal:
            answer = refusal.errno
        except Exception:
            log.exception("%s of node %d", request.name, request.node)
            answer = errno.EIO
        if self.in_flight.take(request.unique) is None:
            if not isinstance(answer, int) and not self._answered_before(request):
                self._filesystem.unanswered(request, answer)
            return
        self._reply(request, pending.device, answer, desk, pending.started_s)
        self._slots.release(pending.slot)

    # -- answering ------------------------------------------------------------------------------

    def _reply(
        self,
        request: Request,
        device: int,
        answer: Payload | int | None,
        desk: _Desk,
        started_s: float,
    ) -> None:
        if answer is None:
            pass
        elif isinstance(answer, int):
            self._send(device, codec.error_bytes(request.unique, answer))
            name = errno.errorcode.get(answer, str(answer))
            desk.tally.add(("hotshard_mount_errors_total", "errno", name, "opcode", request.name))
        else:
            head = _pack_head(OUT_HEADER_BYTES + len(answer), 0, request.unique)
            if not self._send(device, head, answer) and not self._answered_before(request):
                self._filesystem.unanswered(request, answer)
            if request.opcode == abi.Op.READ:
                desk.tally.add(_READ_BYTES, len(answer))
        if request.unique & abi.UNIQUE_RESEND:
            desk.tally.add(_RESENT)
        desk.tally.request(request.opcode, time.monotonic() - started_s)

    def _answered_before(self, request: Request) -> bool:
        """Whether a dead process may have answered this open: then somebody uses its handle."""
        return request.unique in self._replayed and request.opcode in _OPENS

    def _finish(self, pending: Pending, code: int) -> None:
        """Answer a request that was taken from its worker."""
        desk = self._desk()
        self._reply(pending.request, pending.device, code, desk, pending.started_s)
        self._slots.release(pending.slot)

    def _send(self, device: int, *parts: Payload) -> bool:
        """Hand a reply to the kernel; False: nobody waits for it any more."""
        try:
            os.writev(self._devices[device], parts)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            if error.errno in {errno.ENODEV, errno.ECONNABORTED, errno.EPERM}:
                return True
            log.exception("answering the kernel")
        return True

    def _acquire(self, device: int) -> int:
        """A slot for the next request; waits while every one is in use."""
        while True:
            slot = self._slots.acquire(device)
            if slot is not None:
                return slot
            time.sleep(0.01)

    def _desk(self) -> _Desk:
        desk: _Desk | None = getattr(self._local, "desk", None)
        if desk is None:
            desk = self._local.desk = _Desk()
            self._desks.append(desk)
        return desk


def _dying(pid: int, waited_s: float) -> bool:
    """Whether the caller of a request has a fatal signal waiting for it.

    Every signal makes the kernel send INTERRUPT once. A read of a local disk is not disturbed by a signal
    that has a handler, so neither is ours; but a process that is being killed must not wait for an
    origin.
    """
    if not pid:
        return waited_s >= UNKNOWN_CALLER_S
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            masks = [line.split()[1] for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    except OSError:
        return True
    return any(int(mask, 16) & 1 << 8 for mask in masks)
