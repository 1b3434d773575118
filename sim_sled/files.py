"""Files that a person names are written as UTF-8, whatever the locale, and what goes wrong is a sentence.

Read before: language/files.py. Read next: cli/surface.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from nexus_client.dropshot.streams import CannotWrite


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


def why_unwritable(path: Path | None) -> str | None:
    """The sentence that `CannotWrite` would be at the end of something long, told before it begins; None: nothing is
    known that would be in the way. None and `-` are no files.
    """
    if path is None or str(path) == "-":
        return None
    folder = path.parent
    try:
        if path.is_dir():
            why = "it is a folder"
        elif not folder.is_dir():
            why = f"there is no folder {folder}"
        elif not os.access(path if path.exists() else folder, os.W_OK):
            why = "permission denied"
        else:
            return None
    except (OSError, ValueError) as error:  # what no file can be called
        why = getattr(error, "strerror", None) or str(error)
    return f"cannot write {path}: {why}"


def why_no_folder(path: Path) -> str | None:
    """The same of a folder that shall have something new in it, and is made if it is not there."""
    there = path
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            why = f"{there} is no folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            why = "permission denied"
        else:
            return None
    except (OSError, ValueError) as error:  # what nothing can be called
        why = getattr(error, "strerror", None) or str(error)
    return f"cannot write {path}: {why}"
