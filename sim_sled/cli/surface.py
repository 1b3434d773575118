"""Where a command meets the person who typed it: its streams, its exit code, and Ctrl-C.

    closed or full stdout or stderr -> exit 2 and a sentence      Ctrl-C -> 130 and one line, at any moment
    a file that cannot be written   -> the same

Read before: files.py. Read next: cli/sled_options.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NoReturn, TextIO

import typer

from nexus_client.dropshot.command_line import BAD_INPUT, INTERRUPTED
from sim_sled.files import CannotWrite

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def run(command: Callable[[], object], *, ctrl_c: bool = True) -> NoReturn:
    """Run a command and exit with its code; see above. `ctrl_c`: from here on it is a KeyboardInterrupt, and whoever
    is under way says how far he came; False leaves its handler as it is.
    """
    _take_streams()
    code: int | str | None = 0
    try:
        try:
            if ctrl_c:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            command()
            code = _flushed(0)
        except SystemExit as end:
            code = _flushed(end.code)
            if code == INTERRUPTED and _comes_of_ctrl_c(end):
                _interrupted("")
        except CannotWrite as error:
            code = _say(str(error))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over: nothing is left to be interrupted
    except KeyboardInterrupt:  # out of the command, or of any line above
        code = _interrupted("")
    if code == BAD_INPUT:
        _forget_streams()
    sys.exit(code)


def _flushed(code: int | str | None) -> int | str | None:
    """What the streams still hold decides too."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except CannotWrite as error:
        return _say(str(error))
    return code


@contextlib.contextmanager
def interruptible(how_far: Callable[[], str]) -> Iterator[None]:
    """For what takes long: Ctrl-C ends it with 130 and one line that says how far it came."""
    try:
        yield
    except KeyboardInterrupt:
        raise _Told(_interrupted(f" after {how_far()}")) from None


def _comes_of_ctrl_c(end: BaseException | None) -> bool:
    """Whether it was Ctrl-C, of which nothing has been said yet: not a server's orderly end by the same signal."""
    while end is not None and not isinstance(end, _Told):
        if isinstance(end, KeyboardInterrupt):
            return True
        end = end.__cause__ or end.__context__
    return False


class _Told(typer.Exit):
    """The end of a command that has said why."""


def _interrupted(how_far: str) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(CannotWrite):
        sys.stderr.write(f"\nsim-sled: interrupted{how_far}\n")
    return INTERRUPTED


def fitted(text: str, stream: TextIO | None = None) -> str:
    """Sentences for people, broken between words where a terminal would break them within one; in a pipe as they are.
    `stream`: where they go, stdout by default.
    """
    if not (sys.stdout if stream is None else stream).isatty():
        return text
    return wrapped(text, shutil.get_terminal_size().columns)


def wrapped(text: str, width: int) -> str:
    """Lines that are longer than `width` go on a little further in than they begin."""
    out: list[str] = []
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\n")
        if len(bare) <= width:
            out.append(line)
            continue
        inner = " " * min(len(bare) - len(bare.lstrip()) + 2, width // 2)
        parts = textwrap.wrap(
            bare,
            width,
            subsequent_indent=inner,
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        out.append("\n".join(parts) + line[len(bare) :])
    return "".join(out)


# --- streams -----------------------------------------------------------------------------------------------------


class _Stream(io.FileIO):
    """A file descriptor whose failure to write is a sentence that no library on the way swallows."""

    def __init__(self, number: int, called: str) -> None:
        super().__init__(number, "w", closefd=False)
        self._called = called

    def write(self, part: ReadableBuffer, /) -> int:
        try:
            return super().write(part) or 0
        except OSError as error:
            raise CannotWrite(f"cannot write to {self._called}: {error.strerror or error}") from None


def _take_streams() -> None:
    closed = [name for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)) if stream is None]
    if closed:
        left = sys.stderr or sys.stdout
        if left is not None:
            left.write(f"sim-sled: {' and '.join(closed)} closed: there is nowhere to write to\n")
        _forget_streams()
        sys.exit(BAD_INPUT)
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


def _forget_streams() -> None:
    """The interpreter flushes them at its end, and what cannot be written would be told a second time."""
    nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 -- for the rest of the process
    sys.stdout = sys.stderr = nowhere


def _say(sentence: str) -> int:
    with contextlib.suppress(CannotWrite):
        sys.stderr.write(f"sim-sled: {sentence}\n")
        sys.stderr.flush()
    return BAD_INPUT
