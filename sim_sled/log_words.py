"""What can be said on a command line about logs; of its own, since every command reads its options and few ever log.

Read next: logs.py.
"""

from __future__ import annotations

from enum import Enum


class LogFormat(Enum):
    AUTO = "auto"
    HUMAN = "human"
    BUNYAN = "bunyan"


class LogLevel(Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
