"""A process that has imported our programs, and becomes one whenever it is asked to (`support.processes.forked`).

    python fork_server.py NUMBER      # of a socket: a request comes in, the id of a process goes out

Starting a program is nine tenths imports, and tests start hundreds. A fork has them. It is a child of whoever asked,
not of this process, which needs two forks: the first one's end leaves the second to its nearest ancestor that wants
such (`PR_SET_CHILD_SUBREAPER`), and that is who asks, for as long as it takes.

What a program cannot be told any more is what Python reads when it starts: `processes.forked` refuses that.

A program that starts others of ours (`STARTS`) is given such a process of its own, a child that it does not know of:
what it starts is its child, and forked too.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import io
import os
import pickle
import resource
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, TextIO

IMPORTED: Final = (
    "propolis_stub.commands",
    "propolis_stub.server.serve",
    "sim_sled.cli.main",
    "sim_sled.cli.control_client",
    "sim_sled.cli.scenario_commands",
    "sim_sled.cli.traces",
    "sim_sled.daemon.serve",
    "sim_sled.daemon.workers",
    "nexus_client.stub.server.serve",
    "pytest",
)
"""What programs begin with, and, through these, all that they are made of. No `__main__`: that is run."""
STARTS: Final = {"--detach", "--workers"}
"""Words of a program that starts others."""
BY_ITSELF: Final = "uvloop"
"""What starts them without `subprocess.Popen`, by which they are forked: such a program has the loop of who has not
installed it.
"""
REQUEST_BYTES_MAX: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
_STREAMS: Final = 3  # of the standard
_OWN_SIGNALS: Final = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
"""Of which the interpreter takes care, whatever was inherited."""


class Own(NamedTuple):
    """A process that a program forks others from, and how it is asked."""

    pid: int
    channel: socket.socket


def asked_for(channel: socket.socket) -> tuple[str, list[str], Own | None]:
    """A program, its words, and what it forks others from. Returns once per request, in a process that is to run it,
    and else not at all: this process ends when nobody can ask any more.
    """
    while True:
        request, streams, _, _ = socket.recv_fds(channel, REQUEST_BYTES_MAX, _STREAMS)
        if not request:
            sys.exit()
        waits, goes = os.pipe()
        first = os.fork()
        if not first:
            if os.fork():
                os._exit(0)
            os.close(goes)
            os.read(waits, 1)  # ends when the other end is closed: the first one is gone, and whoever asked is parent
            asked = pickle.loads(request)
            own = None
            if STARTS & set(asked["words"]):
                ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                pid = os.fork()
                if not pid:
                    os.dup2(0, 2)  # who reads what pytest says would wait for a rack that is left running
                    for each in (waits, ours.detach(), channel.detach(), *streams):
                        os.close(each)
                    channel = its
                    continue
                its.close()
                own = Own(pid, ours)
            try:
                _become(streams, own=own, **asked)
            except Exception as error:  # noqa: BLE001 - whatever it is: else who asks would wait for ever
                channel.send(pickle.dumps((os.getpid(), error)))
                os._exit(0)
            channel.send(pickle.dumps((os.getpid(), None)))
            channel.detach()
            kept = own.channel.fileno() if own else _STREAMS
            os.closerange(_STREAMS, kept)
            os.closerange(kept + (own is not None), os.sysconf("SC_OPEN_MAX"))
            return asked["program"], asked["words"], own
        os.waitpid(first, 0)
        for each in (waits, goes, *streams):
            os.close(each)


def _become(
    streams: list[int],
    *,
    parent: int,
    cwd: str,
    env: dict[str, str],
    session: bool,
    inherited: dict[str, Any],
    mortal: bool,
    own: Own | None,
    **_: Any,
) -> None:
    """All that a new program finds, and this process has otherwise. Raises what whoever asked is to get."""
    if own is not None:
        from processes import fork_from

        fork_from(own.channel)
        sys.modules[BY_ITSELF] = None  # type: ignore[assignment] # as the import system takes it for one that is not there
    if mortal:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)  # it is gone already
    os.chdir(cwd)
    if session:
        os.setsid()
    _inherit(**inherited)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    sys.stdin, sys.stdout, sys.stderr = (_text(*each) for each in enumerate((sys.stdin, sys.stdout, sys.stderr)))
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.path[:1] = [str(Path.cwd()), *_from(env)]
    os.environ.clear()
    os.environ.update(env)
    time.tzset()


def _inherit(
    umask: int, limits: dict[int, tuple[int, int]], ignored: set[signal.Signals], blocked: set[signal.Signals]
) -> None:
    os.umask(umask)
    for number, limit in limits.items():
        resource.setrlimit(number, limit)
    for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, *_OWN_SIGNALS}:
        signal.signal(each, signal.SIG_IGN if each in ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _from(env: Mapping[str, str]) -> list[str]:
    """Where else Python looks for modules, seen from here."""
    given = env.get("PYTHONPATH")
    return [str(Path(each).absolute()) for each in given.split(os.pathsep)] if given else []


def _text(number: int, now: TextIO) -> TextIO:
    """A standard stream as the interpreter makes it."""
    unbuffered = now.write_through  # PYTHONUNBUFFERED
    mode = "w" if number else "r"
    binary: Any = open(number, f"{mode}b", 0 if number and unbuffered else -1, closefd=False)  # noqa: SIM115
    getattr(binary, "raw", binary).name = now.name
    by_line = not unbuffered and (number == 2 or binary.isatty())
    made = io.TextIOWrapper(binary, now.encoding, now.errors, "\n", by_line, unbuffered)
    made.mode = mode
    return made


def _end(code: Any) -> NoReturn:
    """As the interpreter ends, but for taking apart whatever there is, which would copy all that is shared with the
    server. Any other end than this one (an exception, a signal) is the interpreter's own.
    """
    threading._shutdown()  # as multiprocessing ends what it forks
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except (AttributeError, OSError, ValueError):  # there is none, or it is full, or closed
        sys.exit(code)
    if code is not None and not isinstance(code, int):
        sys.exit(code)  # it says so
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    # ours are those beside these tests, also where others are installed: a copy with a planted bug
    sys.path.insert(0, str(Path(__file__).parents[2]))
    for name in IMPORTED:
        importlib.import_module(name)
    del sys.path[0]
    gc.collect()
    gc.freeze()  # else the first collection of each program would make a copy of all that it shares with this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a pytest reaches this process, too
    what, words, own = asked_for(socket.socket(fileno=int(sys.argv[1])))
    sys.modules.pop(what, None)  # a module that is a program, too, is run as `__main__`
    sys.argv = ["-m", *words]
    sys.orig_argv = [sys.executable, "-m", what, *words]
    try:
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        code: Any = 0
    except SystemExit as end:
        code = end.code
    if own is not None:
        own.channel.close()
        os.waitpid(own.pid, 0)
    _end(code)
