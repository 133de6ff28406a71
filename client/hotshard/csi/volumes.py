"""Publishes and unpublishes volumes, and goes on with what another driver has published.

Each combination of prefix and options is mounted once (`mounts_dir/<name>`) and bound to every pod that
asks for it, so that all pods of the node share one page cache; when the last one leaves, it is unmounted.
Every change is made under the ledger's lock, in an order that the next driver can go on from:

    mount -> keeper holds its descriptors -> the ledger is written -> bind

A file system that the ledger does not know, and a volume of the ledger that is not bound, are forgotten at
the next start. A file system that died, because
driver and keeper were killed together or somebody aborted it, is replaced by a new one, which is bound over
the dead one: a container that has `mountPropagation: HostToContainer` sees it.
"""

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from hotshard.csi import mounter
from hotshard.csi.figures import Sample
from hotshard.csi.keeper import MOUNTS_MAX
from hotshard.csi.keeper_line import KeeperLine, NoKeeper, Refused
from hotshard.csi.ledger import Book, Ledger, Mount, Volume
from hotshard.csi.mounter import MounterError
from hotshard.csi.options import DriverOptions
from hotshard.csi.served import Served, ServedMounts
from hotshard.csi.volume import Rejected, Wish
from hotshard.mount import survey
from hotshard.mount.command import check_source
from hotshard.mount.config import MountOptions, Plan
from hotshard.mount.keeper import PERIOD_S
from hotshard.mount.starting import Launch
from hotshard.mount.state import HEARTBEAT_AT

log = logging.getLogger(__name__)

RECONCILE_PERIOD_S = 0.5
DIRECT_AFTER_S = 5.0


class Volumes:
    """All volumes of this node. Safe for threads."""

    def __init__(self, options: DriverOptions, launch: Launch) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._ledger = Ledger(options.ledger)
        self._keeper = KeeperLine(options.keeper_socket)
        self._next_s = 0.0
        self.served = ServedMounts(launch)
        self.healed = 0
        """File systems that had died and were mounted anew."""

    # -- what kubelet asks for ------------------------------------------------------------------

    def publish(self, wish: Wish) -> None:
        """Make a volume appear at its target; if it is there already, see that it works.

        Raises:
            Rejected: it is published there with other attributes, or somebody is at it right now.
            HotshardError: the cache server or the origin refuse.
            DeviceError, MounterError: the system refuses.
        """
        with self._alone_at(wish.target):
            with self._changing() as book:
                if self._published(book, wish):
                    return
                found = self._shareable(book, wish)
            options = wish.options
            if wish.uri and found is None:
                options = self._surveyed(wish)  # asks the origin: not under the lock
            with self._changing() as book:
                name = self._file_system(book, wish, options)
                book.volumes[wish.target] = Volume(
                    wish.target, wish.volume_id, wish.fingerprint, name, wish.multi_node
                )
            try:
                with self._changing() as book:
                    if wish.target not in book.volumes:
                        raise Rejected("ABORTED", "another driver has begun; ask it")
                    self._show(book, name, wish.target)
            except MounterError:
                self._withdraw(wish.target)
                raise
        log.info("volume %s: %s is at %s", wish.volume_id, wish.uri or "the socket", wish.target)

    def unpublish(self, volume_id: str, target: str) -> None:
        """Undo it; what is not published is no error.

        Raises:
            Rejected: another volume is published there.
            MounterError: the system refuses.
        """
        with self._alone_at(target), self._changing() as book:
            volume = book.volumes.get(target)
            if volume is not None and volume.volume_id != volume_id:
                raise Rejected("NOT_FOUND", f"another volume is published at {target}")
            mounter.clear(target)
            if volume is not None:
                del book.volumes[target]
                self._retire(book, volume.mount)
                log.info("volume %s left %s", volume_id, target)

    def find(self, volume_id: str, target: str) -> tuple[Volume, Served | None]:
        """A volume, and its file system if it has one and we serve it.

        Raises:
            Rejected: NOT_FOUND.
        """
        with self._changing() as book:
            volume = book.volumes.get(target)
            if volume is None or volume.volume_id != volume_id:
                raise Rejected("NOT_FOUND", f"volume {volume_id} is not published at {target}")
            return volume, self.served.get(volume.mount)

    def counts(self) -> dict[Sample, float]:
        """Figures for the metrics."""
        with self._changing() as book:
            sockets = sum(1 for volume in book.volumes.values() if not volume.mount)
            name = "hotshard_csi_volumes"
            return {
                (name, "kind", "mount"): len(book.volumes) - sockets,
                (name, "kind", "socket"): sockets,
                ("hotshard_csi_mounts",): len(self.served),
                ("hotshard_csi_mounts_silent",): sum(one.silent() for one in self.served),
                ("hotshard_csi_mounts_healed_total",): self.healed,
                ("hotshard_csi_keeper_connected",): float(self._keeper.connected),
            }

    def mount_metrics(self) -> list[str]:
        """What the readers have written, as Prometheus text each."""
        texts = []
        with self._lock:
            paths = [one.plan.options.metrics_file for one in self.served]
        for path in paths:
            with contextlib.suppress(OSError), open(path or os.devnull, encoding="utf-8") as file:
                texts.append(file.read())
        return texts

    # -- what the driver does by itself ---------------------------------------------------------

    def recover(self) -> None:
        """Serve again what another driver has mounted, mend what cannot be, remove what nobody uses."""
        with self._changing() as book:
            self._reach_keeper(book)
            missing = self._take_over(book)
            there = mounter.mounted()
            for volume in list(book.volumes.values()):
                if volume.target not in there:  # the node was restarted
                    del book.volumes[volume.target]
            for mount in list(book.mounts.values()):
                if not book.users(mount.name):
                    self._retire(book, mount.name)
                elif mount in missing and mounter.gone(mount.plan.target):
                    self._heal(book, mount)
            self._sweep(book)
            log.info("volumes: %d, file systems: %d", len(book.volumes), len(book.mounts))

    def settled(self) -> bool:
        """Whether each mount is served, or will be at once when another driver's reader has ended."""
        with self._lock:
            return all(one.keeper.settled for one in self.served)

    def wait(self, wake: int) -> None:
        """Until there is something to tend, somebody writes to `wake`, or a quarter of a second is over."""
        with self._lock:
            watched = [wake, *self.served.watched()]
        poll = select.poll()
        for fd in watched:
            poll.register(fd, select.POLLIN)
        if wake in dict(poll.poll(PERIOD_S * 1000)):
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)

    def tend(self) -> None:
        """Look after the readers, and after what another driver or the keeper did; quick."""
        with self._lock:
            over = self.served.tend()
            now_s = time.monotonic()
            due = now_s >= self._next_s
            if due:
                self._next_s = now_s + RECONCILE_PERIOD_S
            if not over and not (due and (self._ledger.changed() or not self._keeper.connected)):
                return
        with self._changing() as book:
            for name in over:
                log.info("%s is over", name)
                self._drop(name)
                if not book.users(name):
                    book.mounts.pop(name, None)
            self._reach_keeper(book)
            self._take_over(book)

    def leave(self) -> None:
        """Let others go on: end the readers and make no further change, until the process exits."""
        self._lock.acquire()  # for good
        self.served.leave()

    # -- below: with the lock and the ledger ----------------------------------------------------

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Book]:
        with self._lock, self._ledger.open() as book:
            yield book

    @contextlib.contextmanager
    def _alone_at(self, target: str) -> Iterator[None]:
        with self._lock:
            if target in self._busy:
                raise Rejected("ABORTED", f"another call is at work on {target}")
            self._busy.add(target)
        try:
            yield
        finally:
            with self._lock:
                self._busy.discard(target)

    def _withdraw(self, target: str) -> None:
        """Forget a volume that cannot be bound."""
        with self._changing() as book:
            volume = book.volumes.pop(target, None)
            if volume is not None:
                self._retire(book, volume.mount)

    def _published(self, book: Book, wish: Wish) -> bool:
        """Whether it is published already; mends it if it does not work."""
        volume = book.volumes.get(wish.target)
        if volume is None:
            others = [v for v in book.volumes.values() if v.volume_id == wish.volume_id]
            if others and not wish.multi_node:
                raise Rejected(
                    "FAILED_PRECONDITION",
                    f"{wish.volume_id} is published at {others[0].target}, and its access mode allows"
                    " one place: use accessModes [ReadOnlyMany]",
                )
            return False
        if volume.fingerprint != wish.fingerprint:
            raise Rejected(
                "ALREADY_EXISTS", f"published at {wish.target} before, with other attributes"
            )
        mount = book.mounts.get(volume.mount)
        if mount is not None and self._dead(mount):
            mount = self._heal(book, mount)
        point = mounter.mounted().get(wish.target)
        if mount is not None:
            in_place = point is not None and point.device == mount.plan.device
        else:
            in_place = point is not None and mounter.same(self._options.published_dir, wish.target)
        if not in_place:
            log.warning("%s was not mounted any more", wish.target)
            self._show(book, volume.mount, wish.target)
        return True

    def _dead(self, mount: Mount) -> bool:
        served = self.served.get(mount.name)
        return served.dead() if served is not None else mounter.gone(mount.plan.target)

    def _shareable(self, book: Book, wish: Wish) -> Mount | None:
        for mount in book.mounts.values():
            if mount.key == wish.key and not self._dead(mount):
                return mount
        return None

    def _surveyed(self, wish: Wish) -> MountOptions:
        """The options with their mode settled, after a look at the origin."""
        options = wish.options
        draft = self._plan(wish.uri, options, "")
        # The server decides what may be served, so it is asked even where the origin could be.
        sizes = check_source(replace(draft, options=replace(draft.options, direct="never")))
        if options.mode != "auto":
            return options
        return replace(options, mode=survey.choose(sizes, immutable=options.immutable))

    def _plan(self, uri: str, options: MountOptions, target: str) -> Plan:
        options = replace(
            options,
            address=f"unix://{self._options.client_socket}",
            direct=self._options.direct,
            direct_after_s=min(DIRECT_AFTER_S, options.request_timeout_s / 2),
            orphan_timeout_s=self._options.orphan_timeout_s,
        )
        return Plan(uri, target, "", time.time_ns(), None, options, supervised=True)

    def _file_system(self, book: Book, wish: Wish, options: MountOptions) -> str:
        """The name of the file system of a volume, mounted if need be; empty for the socket."""
        if not wish.uri:
            return ""
        found = self._shareable(book, wish)
        return found.name if found is not None else self._mount(book, wish.key, wish.uri, options)

    def _mount(self, book: Book, key: str, uri: str, options: MountOptions) -> str:
        if len(book.mounts) >= MOUNTS_MAX:
            raise Rejected(
                "RESOURCE_EXHAUSTED", f"{len(book.mounts)} file systems are mounted here"
            )
        name = f"{key[:16]}-{time.time_ns():x}"
        options = replace(options, metrics_file=self._metrics_file(name))
        draft = self._plan(uri, options, f"{self._options.mounts_dir}/{name}")
        devices, state, plan = mounter.mount(draft)
        book.mounts[name] = Mount(name, key, plan)
        self._put(self.served.start(name, plan, devices, state))
        log.info("mounted %s with mode=%s as %s", uri, options.mode, name)
        return name

    def _show(self, book: Book, name: str, target: str) -> None:
        if name:
            mounter.bind(book.mounts[name].plan.target, target)
        else:
            staging = f"{self._options.mounts_dir}/socket-{time.time_ns():x}"
            mounter.bind_directory(self._options.published_dir, target, staging)

    def _heal(self, book: Book, dead: Mount) -> Mount:
        """Mount anew what has died, and bind it over the dead one wherever that is."""
        log.error("%s (%s) had died; mounting it anew", dead.plan.uri, dead.name)
        name = self._mount(book, dead.key, dead.plan.uri, dead.plan.options)
        for volume in book.users(dead.name):
            self._show(book, name, volume.target)
            volume.mount = name
        self._retire(book, dead.name)
        self.healed += 1
        return book.mounts[name]

    def _retire(self, book: Book, name: str) -> None:
        """Unmount a file system that nobody uses; while a pod still has it open, it is served on."""
        mount = book.mounts.get(name)
        if mount is None or book.users(name):
            return
        mounter.clear(mount.plan.target)
        served = self.served.get(name)
        if served is None or served.dead():
            self._drop(name)
            del book.mounts[name]
        else:
            mount.key = ""

    def _drop(self, name: str) -> None:
        self.served.drop(name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._metrics_file(name))
        with contextlib.suppress(NoKeeper, Refused):
            self._keeper.drop(name)

    def _metrics_file(self, name: str) -> str:
        return f"{self._options.metrics_dir}/{name}.prom"

    def _put(self, served: Served) -> None:
        try:
            self._keeper.put(served.name, HEARTBEAT_AT, served.descriptors)
        except (NoKeeper, Refused) as error:
            log.error("%s is not safe from a restart of the driver: %s", served.name, error)  # noqa: TRY400

    def _reach_keeper(self, book: Book) -> None:
        """Connect to the keeper if need be, and bring it up to date."""
        if self._keeper.connected:
            return
        try:
            self._keeper.connect()
            known = self._keeper.names()
            for name in known:
                if name not in book.mounts:
                    self._keeper.drop(name)
        except (NoKeeper, Refused):
            return
        for served in self.served:
            if served.name not in known:
                self._put(served)

    def _take_over(self, book: Book) -> list[Mount]:
        """Serve what is in the ledger and not served here; gives what the keeper does not have."""
        missing = []
        for mount in book.mounts.values():
            if self.served.get(mount.name) is not None:
                continue
            try:
                descriptors = self._keeper.get(mount.name)
            except (NoKeeper, Refused):
                missing.append(mount)
                continue
            if self.served.resume(mount.name, mount.plan, descriptors) is None:
                self._drop(mount.name)  # nobody can serve it: its readers must not wait
                missing.append(mount)
        return missing

    def _sweep(self, book: Book) -> None:
        """Remove what a driver left behind that was killed between two steps."""
        known = {mount.plan.target for mount in book.mounts.values()}
        for entry in os.listdir(self._options.mounts_dir):
            path = f"{self._options.mounts_dir}/{entry}"
            if path not in known:
                with contextlib.suppress(MounterError):
                    mounter.clear(path)
