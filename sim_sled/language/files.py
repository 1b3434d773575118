"""Reading a file that somebody named: never longer than a limit, never for ever.

A size that `stat` tells is no bound (a device has none, a file grows while it is read), so what is *read* is counted.

Read next: files.py, port_file.py.
"""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path
from typing import Final

PIPE_WAIT_S: Final = 10.0
"""How long a pipe (`check <(make-scenario)`) may be silent; nobody waits for ever for a writer that does nothing."""
_PART: Final = 1024 * 1024


class TooLong(Exception):
    """There is more than the limit; nothing of it was kept."""


def read_bounded(path: Path, limit: int, *, regular: bool = False) -> bytes:
    """All of a file, at most `limit` bytes. `regular`: devices and pipes are refused.

    Raises `TooLong`, or OSError with a `strerror` that a person understands.
    """
    # a pipe without a writer would block in `open` itself
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(None, "it is a folder", str(path))
        if regular and not stat.S_ISREG(mode):
            raise OSError(None, "not a regular file", str(path))
        waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(handle)
        parts: list[bytes] = []
        length = 0
        while True:
            if waits and not _has_something(handle):
                raise OSError(None, f"nothing came for {PIPE_WAIT_S:.0f} s", str(path))
            part = os.read(handle, min(_PART, limit + 1 - length))
            if not part:
                return b"".join(parts)
            parts.append(part)
            length += len(part)
            if length > limit:
                raise TooLong
    finally:
        os.close(handle)


def _has_something(handle: int) -> bool:
    """Waits for it. Not `select`: that knows no descriptor beyond 1,023, and a daemon may have thousands."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(PIPE_WAIT_S * 1000))


def is_file(path: Path) -> bool:
    """False also where nobody may look, and of what no file can be called (too long, a zero in it): whoever reads it
    then says why.
    """
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """As `is_file`."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def read_stdin(limit: int) -> bytes:
    """All of standard input, at most `limit` bytes. Raises `TooLong`."""
    data = sys.stdin.buffer.read(limit + 1)
    if len(data) > limit:
        raise TooLong
    return data


def inside(folders: tuple[Path, ...], path: Path) -> bool:
    """Whether a file is, links followed, in one of these folders or below. What no file can be called is nowhere."""
    try:
        real = path.resolve()
    except (OSError, ValueError, RuntimeError):  # the last: links in a circle
        return False
    return any(real.is_relative_to(folder.resolve()) for folder in folders)
