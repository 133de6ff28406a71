"""Logging: one line per event on the standard error stream, for people or for machines.

Modules use the standard library (`log = logging.getLogger(__name__)`); values that should be searchable go
into `extra={...}` and come out as key=value pairs or JSON fields. All lines logged on behalf of one request
(scope.py) carry its id, on every node that it reaches. One line per request or change of state, none per
block.
"""

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, TextIO

from cache_server.scope import current_id

# What every record has; the rest came in as `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_log = logging.getLogger(__name__)


def setup(
    level: Literal["debug", "info", "warning", "error"],
    style: Literal["text", "json"],
    stream: TextIO | None = None,
) -> None:
    """Send all logging of the process to one stream, replacing what was set up before."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # Chatty libraries say nothing of ours below their warnings.
    for name in ("asyncio", "aiobotocore", "aiohttp", "botocore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)


def catch_uncaught(loop: asyncio.AbstractEventLoop) -> None:
    """Log what nobody handled: in tasks and callbacks of the loop, in threads, in the main thread."""
    loop.set_exception_handler(_loop_exception)
    threading.excepthook = _thread_exception
    sys.excepthook = _main_exception


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO module: message key=value`; a traceback follows, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, unless there is a traceback."""
        module = record.name.removeprefix("cache_server.")
        head = f"{_time(record)} {record.levelname} {module}: {_one_line(record.getMessage())}"
        pairs = "".join(f" {name}={_value(value)}" for name, value in _context(record).items())
        trace = _traceback(self, record)
        indented = "".join(f"\n    {line}" for line in trace.splitlines())
        return f"{head}{pairs}{indented}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, always."""
        event: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_context(record),
        }
        trace = _traceback(self, record)
        if trace:
            event["exception"] = trace
        return json.dumps(event, default=str)


def _time(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"


def _context(record: logging.LogRecord) -> Mapping[str, object]:
    """What came as `extra`, after the request's id."""
    request_id = current_id()
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {"request": request_id, **extra} if request_id else extra


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else ""


def _one_line(text: str) -> str:
    """Names of objects are user input: they may not start a line of their own."""
    return text if text.isprintable() else "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")


def _value(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    plain = text and text.isprintable() and not set(text) & set(' "=')
    return text if plain else json.dumps(text, ensure_ascii=False)


def _loop_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    place = context.get("task") or context.get("future") or context.get("handle")
    _log.error("%s: %r", context.get("message", "uncaught"), place, exc_info=error)


def _thread_exception(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "?"
    if args.exc_value is not None:
        _log.error("thread %s died", name, exc_info=args.exc_value)


def _main_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _log.critical("uncaught", exc_info=(kind, error, trace))
