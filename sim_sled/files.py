"""Files that a person names: read with a bound, written as UTF-8, and a sentence for whatever goes wrong.

A bound holds for what is read, not for what `stat` says: `/dev/zero` has no size, a pipe neither. A pipe that nobody
writes to is told after `PATIENCE_S`, not waited for.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 5.0
"""For the next bytes of a pipe; `<(command)` of a shell needs some."""

TRACE_BYTES_MAX: Final = 1024 * 1024 * 1024
"""A trace has a line per happening: a day of a busy rack has some 100 MB."""

PORT_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
"""Of a fleet: 10,000 sleds with 100 bytes each are one."""

_PART: Final = 1024 * 1024


class CannotRead(Exception):
    """The sentence says which file and why."""


class CannotWrite(Exception):
    """The sentence says what and why. Not an `OSError`: libraries swallow those on their way to the exit code."""


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """All of a file, if it has at most `bytes_max` bytes. Raises `CannotRead`."""
    parts, size = [], 0
    try:
        # without O_NONBLOCK, opening a pipe waits for somebody who writes
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while part := _next(file):
                parts.append(part)
                size += len(part)
                if size > bytes_max:
                    raise CannotRead(f"{path}: more than {bytes_max} bytes")
        finally:
            os.close(file)
    except OSError as error:
        raise CannotRead(f"{path}: {error.strerror or error}") from None
    except ValueError as error:  # a NUL in the name
        raise CannotRead(f"{str(path)!r}: {error}") from None
    return b"".join(parts)


def read_text(path: Path, bytes_max: int) -> str:
    """The same as text: UTF-8, whatever the locale. Raises `CannotRead`."""
    try:
        return read_bounded(path, bytes_max).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CannotRead(f"{path}: not UTF-8: byte {error.object[error.start]:#04x} at {error.start}") from None


def _next(file: int) -> bytes:
    try:
        return os.read(file, _PART)
    except BlockingIOError:
        if select.select([file], [], [], PATIENCE_S)[0]:
            return os.read(file, _PART)
        raise TimeoutError(0, f"nothing came for {PATIENCE_S:g} s") from None


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Write it, UTF-8 whatever the locale. Raises `CannotWrite`."""
    try:
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines([text] if isinstance(text, str) else text)
    except (OSError, ValueError) as error:
        raise CannotWrite(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from None
