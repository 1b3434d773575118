"""Processes of tests. Each dies with the test that started it, whatever happens to that test, or to pytest itself."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]

_started: list[asyncio.subprocess.Process] = []
_PR_SET_PDEATHSIG: Final = 1


def _die_with_parent() -> None:
    """Linux: the kernel kills the child when its parent is gone, even by SIGKILL. Elsewhere `end_all` has to do."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def start(*command: str, **options: Any) -> asyncio.subprocess.Process:
    """`asyncio.create_subprocess_exec` in the repository's folder, with both outputs piped unless said otherwise."""
    piped = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, "cwd": ROOT}
    if sys.platform == "linux":
        piped["preexec_fn"] = _die_with_parent
    process = await asyncio.create_subprocess_exec(*command, **{**piped, **options})
    _started.append(process)
    return process


def end_all() -> list[int]:
    """Kills what a test left running; returns their ids. Called after every test (tests/conftest.py)."""
    left = [process for process in _started if process.returncode is None]
    _started.clear()
    ended = []
    for process in left:
        try:
            process.kill()
        except ProcessLookupError:
            continue  # it had ended, and nobody asked
        ended.append(process.pid)
    return ended
