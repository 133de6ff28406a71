"""Log lines for people and for machines."""

import asyncio
import io
import json
import logging
import sys
import threading

import pytest

from cache_server import logs
from cache_server.scope import Scope, entered

log = logging.getLogger("cache_server.test_logs")


@pytest.fixture
def stream(monkeypatch):
    """What setup() writes to; the process's logging is put back afterwards."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    level = root.level
    yield io.StringIO()
    root.setLevel(level)


def lines(stream):
    return stream.getvalue().splitlines()


def test_text_has_context_as_pairs(stream):
    logs.setup("info", "text", stream)
    log.info("sealed %d shards", 3, extra={"disk": "/nvme 0", "seconds": 0.25, "empty": ""})
    (line,) = lines(stream)
    time, level, rest = line.split(" ", 2)
    assert time.endswith("Z")
    assert len(time) == len("2026-01-31T12:00:00.123Z")
    assert level == "INFO"
    assert rest == 'test_logs: sealed 3 shards disk="/nvme 0" seconds=0.25 empty=""'


def test_names_of_objects_cannot_forge_lines(stream):
    logs.setup("info", "text", stream)
    log.info("stat %s", "a\n2026-01-31 CRITICAL forged\x1b[2J", extra={"uri": "b\nc"})
    (line,) = lines(stream)
    assert "\\n2026-01-31 CRITICAL forged\\x1b[2J" in line
    assert 'uri="b\\nc"' in line


def test_json_is_one_object_a_line(stream):
    logs.setup("debug", "json", stream)
    with entered(Scope("r1")):
        try:
            raise KeyError("gone\nbad")
        except KeyError:
            log.exception("failed %s", "x", extra={"uri": "s3://b/k", "odd": object})
    event = json.loads(stream.getvalue())
    assert event["message"] == "failed x"
    assert event["level"] == "error"
    assert event["logger"] == "cache_server.test_logs"
    assert event["request"] == "r1"
    assert event["uri"] == "s3://b/k"
    assert "KeyError" in event["exception"]
    assert len(lines(stream)) == 1


def test_tracebacks_follow_indented(stream):
    logs.setup("info", "text", stream)
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    head, *trace = lines(stream)
    assert head.endswith("ERROR test_logs: failed")
    assert trace[-1] == "    ValueError: why"
    assert all(line.startswith("    ") for line in trace)


def test_level(stream):
    logs.setup("warning", "text", stream)
    log.info("not this")
    log.warning("this")
    assert len(lines(stream)) == 1


def test_setup_again_replaces(stream):
    first = io.StringIO()
    logs.setup("info", "text", first)
    logs.setup("info", "json", stream)
    log.info("once")
    assert first.getvalue() == ""
    assert len(lines(stream)) == 1


async def test_request_ids_follow_tasks_and_do_not_leak(stream):
    logs.setup("info", "text", stream)

    async def one(request_id):
        with entered(Scope(request_id)):
            await asyncio.sleep(0)
            log.info("in %s", request_id)

    async with asyncio.TaskGroup() as group:
        for name in ("a", "b"):
            group.create_task(one(name))
    log.info("outside")
    a, b, outside = lines(stream)
    assert a.endswith("in a request=a")
    assert b.endswith("in b request=b")
    assert outside.endswith("outside")


async def test_errors_nobody_handled_are_logged(stream, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logs.setup("info", "text", stream)
    loop = asyncio.get_running_loop()
    logs.catch_uncaught(loop)
    try:
        loop.call_soon(lambda: 1 // 0)
        await asyncio.sleep(0)
        thread = threading.Thread(target=[].pop, name="worker")
        thread.start()
        await asyncio.to_thread(thread.join)
        try:
            raise RuntimeError("main")
        except RuntimeError as error:
            sys.excepthook(type(error), error, error.__traceback__)
    finally:
        loop.set_exception_handler(None)
    text = stream.getvalue()
    assert "ZeroDivisionError" in text
    assert "thread worker died" in text
    assert "CRITICAL logs: uncaught" in text
