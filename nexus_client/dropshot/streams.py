"""The standard streams of a command: what cannot be written is a sentence and exit code 2, never a traceback. Where
only the reader has gone (`| head`), nothing is said: it has what it wanted.

    streams.take("sim-sled")                      # at the start of a process: closed ones end it here
    code = streams.code_of("sim-sled", command)   # whatever it prints to a full disk, or to a reader that is gone

Read before: dropshot/ending.py. Read next: dropshot/command_line.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nexus_client.dropshot.ending import READER_GONE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_UNWRITTEN: Final = 2
"""The `BAD_INPUT` of dropshot/command_line.py, which brings typer along; who embeds a server has none."""


class CannotWrite(Exception):
    """The sentence says what and why. Not an `OSError`: libraries swallow those on their way to the exit code."""


class ReaderGone(Exception):
    """Nobody reads the pipe any more. No `CannotWrite`: whoever tells of that would tell of this."""


class _Stream(io.FileIO):
    """A file descriptor whose failure to write is a sentence that no library on the way swallows."""

    def __init__(self, number: int, called: str) -> None:
        super().__init__(number, "w", closefd=False)
        self._called = called

    def write(self, part: ReadableBuffer, /) -> int:
        try:
            return super().write(part) or 0
        except BrokenPipeError:
            raise ReaderGone from None
        except OSError as error:
            raise CannotWrite(f"cannot write to {self._called}: {error.strerror or error}") from None


def take(program: str) -> None:
    """From here on, failing to write to them raises `CannotWrite` or `ReaderGone`. Exits if one is closed."""
    closed = [name for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)) if stream is None]
    if closed:
        left = sys.stderr or sys.stdout
        if left is not None:
            left.write(f"{program}: {' and '.join(closed)} closed: there is nowhere to write to\n")
        _forget()
        sys.exit(_UNWRITTEN)
    sys.stdout = _stream(sys.stdout, "stdout")
    sys.stderr = _stream(sys.stderr, "stderr")


def _stream(now: object, called: str) -> io.TextIOWrapper:
    assert isinstance(now, io.TextIOWrapper), "the interpreter's own"
    number = now.fileno()
    # what the encoding of the terminal does not have is written out, not a traceback
    return io.TextIOWrapper(
        io.BufferedWriter(_Stream(number, called)),
        encoding=now.encoding,
        errors="backslashreplace",
        line_buffering=now.line_buffering or called == "stderr",
    )


def code_of(program: str, command: Callable[[], object]) -> int | str | None:
    """The exit code of a command, once all that it has printed is written: that decides too."""
    try:
        try:
            command()
            code: int | str | None = 0
        except SystemExit as end:
            code = end.code
        flush()
    except ReaderGone:
        code = READER_GONE
    except CannotWrite as error:
        code = _UNWRITTEN
        with contextlib.suppress(CannotWrite, ReaderGone):
            sys.stderr.write(f"{program}: {error}\n")
            sys.stderr.flush()
    if code in (_UNWRITTEN, READER_GONE):
        _forget()
    return code


def flush() -> None:
    """Write what they still hold. Raises `CannotWrite`, `ReaderGone`."""
    sys.stdout.flush()
    sys.stderr.flush()


def _forget() -> None:
    """The interpreter flushes them at its end, and what cannot be written would be told a second time."""
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 -- for the rest of the process
    sys.stdout = sys.stderr = nowhere
