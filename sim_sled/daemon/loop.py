"""The event loop of a program that serves: the fast one where it is installed.

Read next: daemon/serve.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


def run(main: Coroutine[None, None, int]) -> int:
    """Runs a program to its end; returns its exit code."""
    try:
        import uvloop  # noqa: PLC0415 -- an optional extra, +24 % (dependencies.md 1)
    except ImportError:
        return asyncio.run(main)
    return int(uvloop.run(main))
