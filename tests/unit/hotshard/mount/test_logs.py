"""Messages of a mount go to standard error, or to syslog."""

import logging
import subprocess
import sys
import syslog

import pytest

from hotshard.mount.logs import SyslogHandler

SCRIPT = (
    "import logging; from hotshard.mount import logs; logs.set_up('x'); logging.info('%s', 'hello')"
)


def test_standard_error_where_somebody_reads_it():
    run = subprocess.run([sys.executable, "-c", SCRIPT], stderr=subprocess.PIPE, check=True)
    assert run.stderr.endswith(b"] INFO hello\n")
    assert run.stderr.startswith(b"x[")


def test_syslog_where_nobody_does(monkeypatch: pytest.MonkeyPatch):
    said: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda *words: said.append(words))
    record = logging.LogRecord("n", logging.ERROR, "p", 1, "%s", ("oh",), None)
    SyslogHandler().handle(record)
    assert said == [(syslog.LOG_ERR, "oh")]
    subprocess.run([sys.executable, "-c", SCRIPT], stderr=subprocess.DEVNULL, check=True)
