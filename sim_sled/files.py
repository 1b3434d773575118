"""Files that a person names are written as UTF-8, whatever the locale, and what goes wrong is a sentence.

Read before: language/files.py. Read next: cli/surface.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path


class CannotWrite(Exception):
    """The sentence says what and why. Not an `OSError`: libraries swallow those on their way to the exit code."""


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write it, UTF-8 whatever the locale; `-` is stdout. Raises `CannotWrite`."""
    if str(path) == "-":
        sys.stdout.writelines([text] if isinstance(text, str) else text)
        return
    try:
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines([text] if isinstance(text, str) else text)
    except (OSError, ValueError) as error:
        raise CannotWrite(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
