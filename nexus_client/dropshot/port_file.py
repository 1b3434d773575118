"""The file in which a server tells where it listens: whole or not there, and gone when the server is."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path


def may_be_replaced(path: Path) -> None:
    """Raises OSError for a device, a pipe or a folder: a port file comes by way of a rename, which would put a plain
    file where `/dev/stdout` was.
    """
    with contextlib.suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(None, "it is a folder", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(None, "not a regular file", str(path))


@contextlib.contextmanager
def told_in(path: Path | None, text: str) -> Iterator[Callable[[str], None]]:
    """`path` holds the text as long as this lasts (None: nobody asked for a file); what is yielded puts another text
    there, of a server whose addresses have changed. Whoever waits for it never sees half of it; a file that another
    server has written meanwhile is left alone. OSError if it cannot be written.
    """
    if path is None:
        yield lambda _: None
        return
    may_be_replaced(path)
    there = text

    def tell(newer: str) -> None:
        nonlocal there
        if _holds(path, there):
            put(path, newer)
            there = newer

    put(path, text)
    try:
        yield tell
    finally:
        if _holds(path, there):
            path.unlink(missing_ok=True)


def put(path: Path, text: str) -> None:
    """Nobody ever reads half of it. OSError with the file's name if it cannot be: a full disk alone gives none, and
    would be taken for an address that cannot be bound.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def _holds(path: Path, text: str) -> bool:
    """Whether the file is still ours. What is wrong with it by now is nothing that a server should end badly for."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8") == text
    return False
