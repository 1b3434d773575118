"""The file in which a server tells where it listens. Nobody ever reads half of one, nor that of one long gone.

A server that ends takes its file away; of one that was killed it stays.

An earlier file is removed at the start of another server only if its process is gone: a second server that then
cannot bind must not take the first one's from those who look for it.

Read before: language/files.py.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from sim_sled.language.files import TooLong, read_bounded

BYTES_MAX: Final = 4 * 2**20
"""Of a fleet: 10,000 sleds with 100 bytes each are one."""


def prepare(path: Path) -> None:
    """Make sure that `path` can be written later, and that nobody reads the addresses of a server that is gone in it.

    OSError otherwise, before anything has started.
    """
    if not _is_of_a_living_one(path):
        path.unlink(missing_ok=True)
    fresh = _fresh(path)
    fresh.touch()
    fresh.unlink()


def write(path: Path, ports: dict[str, Any]) -> None:
    """Write `ports`, and whose they are, as JSON."""
    fresh = _fresh(path)
    fresh.write_text(json.dumps({"pid": os.getpid(), **ports}, indent=2) + "\n", encoding="utf-8")
    fresh.replace(path)


@contextlib.contextmanager
def told(path: Path, ports: dict[str, Any]) -> Iterator[None]:
    """`write`, and the end of it. Raises OSError if it cannot be written."""
    write(path, ports)
    try:
        yield
    finally:
        if _pid(path) == os.getpid():  # else somebody else tells the same people where to go
            path.unlink(missing_ok=True)


def _pid(path: Path) -> int:
    """Whose it is; 0: nobody's."""
    try:
        pid = json.loads(read_bounded(path, BYTES_MAX, regular=True))["pid"]
    except (TooLong, OSError, ValueError, TypeError, KeyError, RecursionError):
        return 0
    return pid if isinstance(pid, int) and pid > 0 else 0


def _is_of_a_living_one(path: Path) -> bool:
    pid = _pid(path)
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return pid not in (0, os.getpid())


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
