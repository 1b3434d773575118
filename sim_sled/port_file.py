"""The file in which a server tells where it listens. Nobody ever reads half of one, nor that of one long gone.

An earlier file is removed at the start of another server only if its process is gone: a second server that then
cannot bind must not take the first one's from those who look for it.

Read before: language/files.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from nexus_client.dropshot import foreign
from nexus_client.dropshot.port_file import may_be_replaced, told_in
from sim_sled.language.files import TooLong, read_bounded

BYTES_MAX: Final = 64 * 2**20
"""Of the largest fleet: 20,000 sleds of a rack with a long name have 5 MB, with the servers beside each some 20."""


def prepare(path: Path) -> None:
    """Make sure that `path` can be written later, and that nobody reads the addresses of a server that is gone in it.

    OSError otherwise, before anything has started.
    """
    may_be_replaced(path)
    if not _is_of_a_living_one(path):
        path.unlink(missing_ok=True)
    fresh = _fresh(path)
    fresh.touch()
    fresh.unlink()


def told(path: Path, ports: dict[str, Any]) -> AbstractContextManager[Callable[[str], None]]:
    """The file has `ports`, and whose they are, as JSON, as long as this lasts. OSError if it cannot be written."""
    return told_in(path, json.dumps({"pid": os.getpid(), **ports}, indent=2) + "\n")


def _is_of_a_living_one(path: Path) -> bool:
    try:
        pid = foreign.loads(read_bounded(path, BYTES_MAX, regular=True))["pid"]
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (TooLong, OSError, ValueError, TypeError, KeyError, OverflowError):
        return False
    return isinstance(pid, int) and pid > 0 and pid != os.getpid()


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}")
