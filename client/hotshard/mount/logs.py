"""Where the processes of a mount say what happens: standard error, or syslog where that leads nowhere.

A mount in the background must not hold the terminal or the pipe of who made it: without `log_file` its
standard error is /dev/null.
"""

import logging
import os
import sys
import syslog

_NULL = os.makedev(1, 3)
_PRIORITIES = {
    logging.DEBUG: syslog.LOG_DEBUG,
    logging.INFO: syslog.LOG_INFO,
    logging.WARNING: syslog.LOG_WARNING,
    logging.ERROR: syslog.LOG_ERR,
    logging.CRITICAL: syslog.LOG_CRIT,
}


class SyslogHandler(logging.Handler):
    """Hands each message to syslog(3), which drops it where nobody listens."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a message."""
        syslog.syslog(_PRIORITIES.get(record.levelno, syslog.LOG_INFO), self.format(record))


def set_up(program: str) -> None:
    """Send the messages of this process where they belong."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    style = f"{program}[{os.getpid()}] %(levelname)s %(message)s"
    if os.fstat(2).st_rdev == _NULL:
        syslog.openlog(program, syslog.LOG_PID, syslog.LOG_DAEMON)
        handler, style = SyslogHandler(), "%(levelname)s %(message)s"
    handler.setFormatter(logging.Formatter(style))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
