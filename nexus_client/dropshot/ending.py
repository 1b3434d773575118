"""How our programs end: SIGTERM and SIGINT from the first moment of a process to its last, in one place.

    ending.begin("sim-sled")     # before anything is imported: whoever asks now gets 130 or 143, and no traceback
    stop = ending.asked()        # in the loop of a server: a future of its exit code
    await ending.unless(stop, start())

The first signal decides. Those that follow are not heard: a server that is closing is closing, and `timeout` and
`docker stop` send theirs to a process and to its group, so that the second one comes when the loop is gone already.
Nor is a SIGHUP that follows, as systemd may send it after its SIGTERM, and a terminal that is closed meanwhile.

Read next: dropshot/streams.py.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Collection, Coroutine
    from typing import Any

CODES: Final = {signal.SIGTERM: 0, signal.SIGINT: 130}
"""Of a server that was asked to end, and did (docs/commands.md)."""
TERMINATED: Final = 143
"""Of whatever else SIGTERM ends: what it was to do is not done. As a shell says it."""
READER_GONE: Final = 141
"""Of a command whose output nobody reads any more (`| head`): as a shell says of a program that SIGPIPE has ended."""

_begun = False
_hears_ctrl_c = False


def begin(program: str) -> None:
    """At the start of a process that is ours. Python would answer Ctrl-C with a traceback out of the middle of some
    import, and the first process of a container does not hear SIGTERM at all as long as nobody handles it. Its
    standard streams are open from then on, if only on nowhere.
    """
    global _begun, _hears_ctrl_c  # noqa: PLW0603 -- of the process, as signals are
    _begun = True
    _keep_standard_streams()

    def too_early(_signal: int, _frame: object) -> None:
        os.write(2, f"\n{program}: interrupted\n".encode())
        os._exit(CODES[signal.SIGINT])

    def terminated(_signal: int, _frame: object) -> None:
        os._exit(TERMINATED)

    _hears_ctrl_c = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if _hears_ctrl_c:
        signal.signal(signal.SIGINT, too_early)
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminated)


def _keep_standard_streams() -> None:
    """A standard stream that whoever started us has closed leads to nowhere: else the next socket would get its
    number, and be written into as if it were stderr, or make uvloop abort when it closes one of these.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)


def hears_ctrl_c() -> bool:
    """Whether Ctrl-C is ours to answer: not where whoever started us has shut it off."""
    return _hears_ctrl_c


def imported() -> None:
    """Everything is there: from now on Ctrl-C is a `KeyboardInterrupt`, which commands answer."""
    if _hears_ctrl_c:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def asked(numbers: Collection[signal.Signals] = tuple(CODES)) -> asyncio.Future[int]:
    """The exit code of a server, as soon as a signal asks it to end. In the running loop; once per program.

    numbers: which of `CODES` it hears; a program that is a part of another one leaves Ctrl-C to that.
    """
    import asyncio  # noqa: PLC0415 -- `begin` comes before what takes long to import

    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()

    def end(number: signal.Signals) -> None:
        if not stop.done():
            stop.set_result(CODES[number])
        if _begun:  # else it is somebody's program that embeds a server, and lives on
            for each in (*CODES, signal.SIGHUP):
                heard_no_more(each)

    for number in numbers:
        loop.add_signal_handler(number, end, number)
    return stop


def heard_no_more(number: signal.Signals) -> None:
    """That signal does nothing any more until the process is gone: the running loop takes its handlers along. In
    somebody's program that embeds a server, and lives on, only until that loop is gone.
    """
    import asyncio  # noqa: PLC0415 -- as above

    loop = asyncio.get_running_loop()
    if _begun:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)
    else:
        loop.add_signal_handler(number, lambda: None)


async def unless(stop: asyncio.Future[int], work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` is done; it is given up as soon as somebody asks for the end. Raises what it raises."""
    import asyncio  # noqa: PLC0415 -- as above

    task = asyncio.ensure_future(work)
    waiting: set[asyncio.Future[Any]] = {task, stop}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if not stop.done() or (task.done() and not (task.cancelled() or task.exception())):  # in one turn
        await task
        return True
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)  # its own end; what it could not do matters to nobody now
    return False
