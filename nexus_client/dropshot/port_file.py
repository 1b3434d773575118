"""The file in which a server tells where it listens: whole or not there, and gone when the server is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def told_in(path: Path | None, text: str) -> Iterator[None]:
    """`path` holds the text as long as this lasts (None: nobody asked for a file). Whoever waits for it never sees
    half of it; a file that another server has written meanwhile is left alone. OSError if it cannot be written.
    """
    if path is None:
        yield
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)
    try:
        yield
    finally:
        # what is wrong with it by now is nothing that a server should end badly for
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if path.read_text(encoding="utf-8") == text:
                path.unlink()
