"""How many open files a process of ours may have, and what is said when there is none left.

Read next: dropshot/listen.py.
"""

from __future__ import annotations

import contextlib
import logging
import resource
from typing import Final

TOLD_EVERY_S: Final = 10.0
"""Between two lines about connections that nobody can accept."""
_ACCEPTS_NONE: Final = "socket.accept() out of system resource"
"""How asyncio begins what it logs then: with a traceback, a thousand times a second."""


def raise_open_files() -> None:
    """The soft limit is often 1,024, and each connection is an open file: up to the hard limit, then. For whoever
    owns the process: a program, not a library in somebody's tests.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in (resource.RLIM_INFINITY, hard):
        with contextlib.suppress(ValueError, OSError):  # a hard limit that the system does not allow after all
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class ToldOnce(logging.Filter):
    """Of asyncio's log: that no file is left for a connection is a line in a while."""

    def __init__(self) -> None:
        super().__init__()
        self._again_s = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(_ACCEPTS_NONE):
            return True
        if record.created < self._again_s:
            return False
        self._again_s = record.created + TOLD_EVERY_S
        record.exc_info = None
        record.msg = "no open file is left for those who connect: they wait (ulimit -n)"
        return True
