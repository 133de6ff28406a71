"""The driver's process: the mounts first, then everything else.

The order at the start is that of how much waits for it: programs in pods wait for their reads while nobody
serves, so the descriptors are fetched from the keeper and readers are started before gRPC is even imported;
kubelet can wait. At the end nothing is unmounted: readers finish what they have begun, and the process
exits without stopping gRPC. Killed at any moment, it leaves the same things behind.
"""

import logging
import os
import signal
import threading
import time

from hotshard.csi.options import DriverOptions
from hotshard.csi.volumes import Volumes
from hotshard.mount import logs
from hotshard.mount.nursery import Nursery

log = logging.getLogger(__name__)

EXIT_FAILED = 1


class Driver:
    """One instance."""

    def __init__(self, options: DriverOptions, nursery: Nursery) -> None:
        self._options = options
        self._nursery = nursery
        self._volumes = Volumes(options, nursery.launch)
        self._ending = threading.Event()
        self._code = 0
        self._wake, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """Until SIGTERM; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ending.set())
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        started_s = time.monotonic()
        self._volumes.recover()
        log.info("recovered in %.0f ms", 1000 * (time.monotonic() - started_s))
        threading.Thread(target=self._open_front, name="front", daemon=True).start()
        while not self._ending.is_set():
            self._volumes.wait(self._wake)
            self._volumes.tend()
            self._nursery.tend()
        self._volumes.leave()
        return self._code

    def _open_front(self) -> None:
        from hotshard.csi.front import Front

        front = Front(self._options, self._volumes)
        try:
            front.open()
        except Exception:
            log.exception("the driver cannot be reached by kubelet")
            self._code = EXIT_FAILED
            self._ending.set()
            os.write(self._wake_write, b"x")
        self._front = front  # a gRPC server that nobody holds stops


def run(options: DriverOptions, nursery: Nursery) -> None:
    """Be the driver; does not return. Readers come from the nursery.

    Raises:
        OSError: kubelet's directories are not there, or not writable.
    """
    logs.set_up("hotshard-csi")
    for directory in (options.mounts_dir, options.metrics_dir):
        os.makedirs(directory, mode=0o700, exist_ok=True)
    code = Driver(options, nursery).run()
    logging.shutdown()
    # Not by sys.exit: gRPC's threads may be inside a call.
    os._exit(code)
