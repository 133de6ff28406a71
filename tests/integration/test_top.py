"""`hotshard top` on a real terminal."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time

import pytest

import hotshard
from support.content import content
from support.waiting import LIMIT_S

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def read_node(node, bucket):
    boto, name = bucket
    boto.put_object(Bucket=name, Key="set/\x1b[2J", Body=content(50_000))
    with hotshard.connect(node.address) as cache:
        uri = f"s3://{name}/set/\x1b[2J"
        assert len(cache.read(uri)) == len(cache.read(uri)) == 50_000
    return node


class Terminal:
    """A program on a terminal of 100 by 30 characters."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 30, 100, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", sys.executable, "-m", "hotshard.cli", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        self.raw = ""

    def shows(self, text, limit_s=LIMIT_S):
        deadline = time.monotonic() + limit_s
        while text not in ESCAPE.sub("", self.raw):
            assert time.monotonic() < deadline, ESCAPE.sub("", self.raw)
            self._read()

    def _read(self):
        """What it writes, if it writes something soon."""
        found = bool(select.select([self.master], [], [], 0.1)[0])
        if found:
            self.raw += os.read(self.master, 65536).decode(errors="replace")
        return found

    def press(self, keys):
        os.write(self.master, keys)

    def ends(self):
        deadline = time.monotonic() + LIMIT_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self._read()
        while self._read():  # what it wrote last
            pass
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 130)])
def test_it_shows_and_ends_and_leaves_the_terminal_as_it_was(read_node, key, code):
    terminal = Terminal("--address", read_node.address, "top", "--every", "0.2")
    try:
        terminal.shows("1 of 1 ready")
        terminal.shows("q ends")
        terminal.press(key)
        assert terminal.ends() == code
        assert "\x1b[?1049l" in terminal.raw  # the screen that was there before is back
        assert termios.tcgetattr(terminal.slave) == terminal.before
        assert "\x1b[2J" not in terminal.raw.replace("\x1b[2J\x1b[H", "")
    finally:
        terminal.close()


def hotshard_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "hotshard.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_for_scripts(read_node):
    once = hotshard_command("--address", read_node.address, "top", "--once")
    assert once.returncode == 0, once.stderr
    assert once.stdout.startswith("one node: 1 of 1 ready")
    assert "\x1b" not in once.stdout
    found = hotshard_command("--address", read_node.address, "top", "--once", "--json")
    document = json.loads(found.stdout)
    assert document["nodes"][0]["reachable"] is True
    assert document["datasets"][0]["bytes"] == 50_000


def test_no_server(tmp_path):
    found = hotshard_command("--address", f"unix://{tmp_path}/none", "top")
    assert found.returncode == 6
    assert found.stderr.startswith("hotshard: ")
