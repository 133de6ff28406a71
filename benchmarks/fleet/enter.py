"""Run a Python module inside the network namespace of another process: enter.py <pid> <module> [args]."""

import ctypes
import os
import runpy
import sys

CLONE_NEWNET = 0x40000000


def enter(pid: int) -> None:
    """Move this thread, and what it starts, into the network namespace of a process."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


if __name__ == "__main__":
    enter(int(sys.argv[1]))
    module, sys.argv = sys.argv[2], [sys.argv[2], *sys.argv[3:]]
    sys.path[0] = os.getcwd()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
