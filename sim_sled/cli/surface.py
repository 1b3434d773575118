"""Where a command meets the person who typed it: its streams, its exit code, and Ctrl-C.

    closed or full stdout or stderr -> exit 2 and a sentence      Ctrl-C -> 130 and one line, at any moment
    a reader that has gone (`| head`) -> 141 without a word
    a file that cannot be written   -> the same

Read before: files.py. Read next: cli/sled_options.py.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from typing import NoReturn

import typer

from nexus_client.dropshot import streams, telling
from nexus_client.dropshot.command_line import BAD_INPUT, INTERRUPTED, UNREACHABLE
from nexus_client.dropshot.streams import CannotWrite, ReaderGone
from sim_sled.machine import PLAYER_ENDED


def run(command: Callable[[], object], *, ctrl_c: bool = True) -> NoReturn:
    """Run a command and exit with its code; see above. `ctrl_c`: from here on it is a KeyboardInterrupt, and whoever
    is under way says how far he came; False leaves its handler as it is.
    """
    streams.take("sim-sled")

    def answered() -> None:
        if ctrl_c:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            command()
        except SystemExit as end:
            if end.code == INTERRUPTED and _comes_of_ctrl_c(end):
                with contextlib.suppress(ReaderGone):  # whom the same Ctrl-C has ended
                    streams.flush()
                _interrupted("")
            raise

    code: int | str | None
    try:
        code = streams.code_of("sim-sled", answered)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over: nothing is left to be interrupted
    except KeyboardInterrupt:  # out of the command, or of any line above
        code = _interrupted("")
    sys.exit(code)


@contextlib.contextmanager
def interruptible(how_far: Callable[[], str]) -> Iterator[None]:
    """For what takes long: Ctrl-C ends it with 130 and one line that says how far it came, and so does the death of
    one of its processes, with 3.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise _Told(_interrupted(f" after {how_far()}")) from None
    except BrokenExecutor:
        fail(f"{PLAYER_ENDED} (after {how_far()})", UNREACHABLE)


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
    with contextlib.suppress(CannotWrite, ReaderGone):
        sys.stderr.write(f"\nsim-sled: interrupted{how_far}\n")
    return INTERRUPTED


def say(message: str) -> None:
    """One sentence on stderr, `sim-sled: ...`."""
    telling.say("sim-sled", message)


def fail(message: str, code: int = BAD_INPUT) -> NoReturn:
    """Say it, and end the command."""
    say(message)
    raise typer.Exit(code)
