"""Checks of a node from a reader's side: kernel, FUSE, the local socket, versions."""

import json
import os
import platform
import re
import stat
import subprocess
import sys
from importlib.metadata import version

import hotshard
from hotshard.core.errors import HotshardError, PermissionDenied
from hotshard.core.findings import Finding, fail, ok, skipped, warn
from hotshard.options import Options, resolve

KERNEL_LEAST = (5, 4)
KERNEL_PASSTHROUGH = (6, 9)
PROBE_S = 15.0
PYTHON_LEAST = (3, 11)


def kernel() -> Finding:
    """Which one runs."""
    release = platform.release()
    numbers = re.match(r"(\d+)\.(\d+)", release)
    found = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if found < KERNEL_LEAST:
        return fail("kernel", release, "mounts need Linux 5.4 or later")
    if found < KERNEL_PASSTHROUGH:
        return warn(
            "kernel",
            release,
            "from Linux 6.9 on, mounts read at the speed of local files and survive a restart of"
            " their server without a pause",
        )
    return ok("kernel", release)


def fuse() -> list[Finding]:
    """What a mount can do here, by making one."""
    command = [sys.executable, "-m", "hotshard.cli.fuse_probe"]
    try:
        answer = subprocess.run(  # noqa: S603 - our own program
            command, capture_output=True, text=True, timeout=PROBE_S, check=True
        ).stdout
        found = json.loads(answer)
    except subprocess.TimeoutExpired:
        remedy = "the kernel does not answer; look at dmesg, and for a mount that hangs"
        return [fail("FUSE", f"no answer within {PROBE_S:.0f} s", remedy)]
    except (subprocess.CalledProcessError, ValueError) as error:
        return [fail("FUSE", f"the probe failed: {error}", "please report this")]
    return judged(found)


def judged(found: dict[str, object]) -> list[Finding]:
    """What the probe's answer means."""
    if "skipped" in found:
        return [skipped("FUSE", str(found["skipped"]))]
    consequence = "mounts do not work here; the library does"
    if "missing" in found:  # a server's or a reader's container needs none
        return [warn("FUSE", str(found["missing"]), consequence)]
    if "error" in found:
        return [fail("FUSE", str(found["error"]), consequence)]
    findings = [ok("FUSE", f"protocol {found['protocol']}")]
    if found["passthrough"]:
        findings.append(ok("FUSE passthrough", "the kernel reads complete files by itself"))
    else:
        remedy = "Linux 6.9 or later with CONFIG_FUSE_PASSTHROUGH, and CAP_SYS_ADMIN for the mount"
        findings.append(warn("FUSE passthrough", "reads go through the mount's process", remedy))
    if found["resend"]:
        findings.append(ok("FUSE resend", "a mount survives its server without a failed read"))
    else:
        remedy = "Linux 6.9 or later; until then upgrade mounts while nobody reads"
        findings.append(warn("FUSE resend", "an upgrade waits for requests under way", remedy))
    return findings


def server(address: str | None) -> list[Finding]:
    """Whether a server answers as clients would reach it, and how it is."""
    name, place = "server", ""
    try:
        kind, place = resolve(Options(address=address), os.environ)
        name = "server" if kind == "grpc" else "local socket"
        with hotshard.connect(address, direct="never", reconnect_s=0.0) as cache:
            found = cache.status()
    except PermissionDenied as error:
        return [fail(name, str(error), _who_may(place))]
    except HotshardError as error:
        what, _, remedy = str(error).partition("; ")
        usual = "start one with `hotshard serve`, or name it with --address"
        return [warn(name, what, remedy or usual)]
    findings = [ok(name, f"{place}: node {found.node_id[:8]}")]
    if not found.ready:
        findings.append(warn("ready", "no", "/readyz of the admin port says why"))
    for disk in found.disks:
        if disk.state != "ready":
            remedy = "look at dmesg; it is tried again by itself"
            findings.append(fail(f"disk {disk.path}", f"{disk.state}: {disk.detail}", remedy))
    findings.append(_versions(found.version))
    return findings


def _who_may(path: str) -> str:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return "the server's certificate and configuration say who may"
    except OSError:
        return f"let uid {os.geteuid()} into the directory of the socket"
    mode = stat.S_IMODE(found.st_mode)
    return (
        f"it is of uid {found.st_uid}, mode {mode:04o}, and this is uid {os.geteuid()}: set"
        " local_socket.mode, or local_socket.allowed_uids"
    )


def _versions(theirs: str) -> Finding:
    ours = version("hotshard")
    fact = f"client {ours}, server {theirs}, Python {platform.python_version()}"
    if ours != theirs:
        return warn("versions", fact, "they work together; upgrade the older one when you can")
    return ok("versions", fact)
