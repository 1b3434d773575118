"""Logs go to stderr: for people on a terminal, one Bunyan JSON object per line otherwise (`docs/daemon.md`).

Nothing on the hot path logs: a request that goes well is a metric, not a line.

Read before: log_words.py. Read next: daemon/saying.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from typing import Any, Final, TextIO, cast

from nexus_client.dropshot.streams import CannotWrite, ReaderGone
from nexus_client.dropshot.text import shown, shown_lines
from nexus_client.types import stamp
from sim_sled.imports import without
from sim_sled.log_words import LogFormat

with without("rich"):  # structlog takes it for tracebacks that we never draw: 50 modules, some 6 MB
    import structlog

_BUNYAN_LEVEL: Final = {"debug": 20, "info": 30, "warning": 40, "error": 50, "critical": 60}


def configure(log_format: LogFormat = LogFormat.AUTO, level: str = "info", *, libraries: bool = True) -> None:
    """Set up the process's logs; called once, by a command. `libraries`: theirs too, if the process is ours."""
    # the state machine library writes four lines per move at INFO (dependencies.md T3)
    logging.getLogger("transitions").setLevel(logging.WARNING)
    global _level  # noqa: PLW0603 -- of the process, as its stderr
    _level = logging.getLevelNamesMapping()[level.upper()]
    human = log_format is LogFormat.HUMAN or (log_format is LogFormat.AUTO and sys.stderr.isatty())
    shared: list[Any] = [structlog.processors.add_log_level, structlog.processors.format_exc_info]
    if human:
        colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        shared += [_clock_time, _for_a_terminal, structlog.dev.ConsoleRenderer(colors=colors)]
    else:
        shared += [_bunyan, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=shared,
        wrapper_class=structlog.make_filtering_bound_logger(_level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Patient())),
        cache_logger_on_first_use=False,
    )
    if libraries:
        logging.getLogger().addHandler(_ROUTED)


class _Routed(logging.Handler):
    """What libraries and the web framework say in Python's own way is a line like any other, also a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        level = max(record.levelno // 10 * 10, logging.DEBUG)
        get(record.name).log(min(level, logging.CRITICAL), record.getMessage(), exc_info=record.exc_info)


_ROUTED: Final = _Routed()


class _Patient:
    """stderr, whose trouble must not become the daemon's: a line that cannot be written is dropped, and counted."""

    def write(self, text: str) -> int:
        global _dropped  # noqa: PLW0603 -- of the process, as its stderr
        try:
            return sys.stderr.write(text)
        except (OSError, CannotWrite, ReaderGone, ValueError):
            _dropped += 1
            return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, CannotWrite, ReaderGone, ValueError):
            sys.stderr.flush()


_level = logging.INFO


def says(level: str) -> bool:
    """Whether lines of that level are written: some cost more to make up than to write."""
    return _level <= logging.getLevelNamesMapping()[level.upper()]


_dropped = 0


def dropped() -> int:
    """Lines that could not be written."""
    return _dropped


def get(component: str) -> Any:
    """A logger whose lines carry `component`."""
    return structlog.get_logger(component=component)


_STAMP: Final = structlog.processors.TimeStamper(fmt="iso", key="time")
_SHORT: Final = structlog.processors.TimeStamper(fmt="%H:%M:%S")
_HOST: Final = socket.gethostname()


def _clock_time(_: Any, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """By the daemon's clock, where a line says it: that may have been stopped and moved."""
    at_us = event.pop("at_us", None)
    if at_us is None:
        return _SHORT(None, level, event)
    event["timestamp"] = stamp(at_us)[11:19]
    return event


def _for_a_terminal(_: Any, _level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Texts of Nexus and of scenarios must not move its cursor or write lines of their own."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = shown_lines(value) if key == "exception" else shown(value)
    return event


def _bunyan(_: Any, level: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    at_us = event.pop("at_us", None)
    if at_us is None:
        event = _STAMP(None, level, event)
    else:
        event["time"] = stamp(at_us)  # by the daemon's clock, which may have been moved
    event.pop("level", None)
    frame = {
        "v": 0,
        "name": "sim-sled",
        "hostname": _HOST,
        "pid": os.getpid(),
        "level": _BUNYAN_LEVEL.get(level, 30),
        "msg": event.pop("event", ""),
    }
    return frame | dict(event) | frame  # whoever reads Bunyan takes these for who has written the line
