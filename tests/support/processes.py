"""Processes of tests. Each dies with the test that started it, whatever happens to that test, or to pytest itself.

    start(sys.executable, "-m", "sim_sled", "serve", ...)    # a program
    start(*forked("sim_sled", "serve", ...))                 # the same, without its imports
    subprocess.run(forked("sim_sled", "version"))            # likewise

A program of ours is forked wherever a test is not about starting it (docs/testing.md).
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]

_started: list[asyncio.subprocess.Process] = []
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def _die_with_parent() -> None:
    """Linux: the kernel kills the child when its parent is gone, even by SIGKILL. Elsewhere `end_all` has to do."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def start(*command: str, **options: Any) -> asyncio.subprocess.Process:
    """`asyncio.create_subprocess_exec` in the repository's folder, with both outputs piped unless said otherwise."""
    piped = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE, "cwd": ROOT}
    if sys.platform == "linux":
        piped["preexec_fn"] = _die_with_parent
    process = await asyncio.create_subprocess_exec(*command, **{**piped, **options})
    _started.append(process)
    return process


def end_all() -> list[int]:
    """Kills what a test left running; returns their ids. Called after every test (tests/conftest.py)."""
    left = [process for process in _started if process.returncode is None]
    _started.clear()
    ended = []
    for process in left:
        try:
            process.kill()
        except ProcessLookupError:
            continue  # it had ended, and nobody asked
        ended.append(process.pid)
    return ended


# --- programs that are forked from a process that has imported them

AT_START: Final = ("PYTHON", "LANG", "LC_")
"""How variables begin that Python reads as it starts. What is forked cannot be told them any more, but PYTHONPATH."""


class _Forked(str):
    """The interpreter, at the beginning of a command whose program is forked."""

    __slots__ = ()


def forked(program: str, *words: str) -> list[str]:
    """The command `python -m program ...`, for whatever starts commands in this process: `start`, `subprocess`,
    `asyncio`. Its process is what that of the command would be, a child of this one, and has not imported anything:
    it was forked from one that had (tests/support/fork_server.py). It dies with this process.

    Not for what is about starting: imports, memory, locales. Whoever starts it gets a ValueError for `AT_START`.
    """
    return [interpreter(), "-m", program, *words]


def interpreter() -> str:
    """Whoever starts `-m program` by this name starts a forked one: for code under test in place of `sys.executable`.
    With SIM_SLED_PROGRAMS=real, and on other systems than Linux, it is that.
    """
    real = sys.platform != "linux" or os.environ.get("SIM_SLED_PROGRAMS") == "real"
    return sys.executable if real else _Forked(sys.executable)


class _Popen(subprocess.Popen):
    """That of the standard library, but for such a command."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, pass_fds: Any, cwd: Any,
                       env: Any, *more: Any) -> None:  # fmt: skip
        if isinstance(args, str) or not isinstance(args[0], _Forked) or args[1] != "-m":
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *more)
            return
        _, _, _, *pipes, _, gid, gids, uid, umask, session, group = more
        if (
            (executable, gid, gids, uid, umask, group) != (None, None, None, None, -1, -1)
            or pass_fds
            or not close_fds
        ):
            raise ValueError(
                "what is forked can be given streams, a folder, an environment, a session: start the program"
            )
        if preexec_fn not in (None, _die_with_parent):
            raise ValueError("what is forked does nothing before it begins: start the program")
        inherited = [given if given != -1 else number for number, given in enumerate((pipes[0], pipes[3], pipes[5]))]
        _, _, program, *words = map(_text, args)
        self.pid = _server().fork(
            inherited, program=program, words=words, cwd=os.fspath(cwd or Path.cwd()), session=session,
            env={_text(name): _text(value) for name, value in (os.environ if env is None else env).items()},
        )  # fmt: skip
        self._child_created = True
        self._close_pipe_fds(*pipes)


def _text(given: Any) -> str:
    """A word of a command, or of an environment. Raises as `exec` does."""
    text = os.fsdecode(given)
    if "\0" in text:
        raise ValueError("embedded null byte")
    return text


subprocess.Popen = _Popen  # where `subprocess.run` and asyncio look for it


class _Server:
    """The process that is forked. It ends when its socket closes, which is when this one ends, whatever ends it.
    `mortal`: so do those that it forks.
    """

    def __init__(self, channel: socket.socket, *, mortal: bool) -> None:
        self._channel, self._mortal = channel, mortal
        self._one_at_a_time = threading.Lock()
        self._environment = _at_start(os.environ)

    def fork(self, streams: list[int], env: dict[str, str], **asked: Any) -> int:
        """The id of a new child of this process. Raises what `subprocess.Popen` does."""
        if _at_start(env) != self._environment:
            raise ValueError(f"what is forked cannot be told {AT_START}...: start the program")
        request = pickle.dumps(
            {**asked, "env": env, "parent": os.getpid(), "mortal": self._mortal, "inherited": _inherited()}
        )
        with self._one_at_a_time, _mother_of_orphans():
            socket.send_fds(self._channel, [request], streams)
            answer = self._channel.recv(10_000)
        if not answer:
            raise RuntimeError("the fork server has ended")
        pid, error = pickle.loads(answer)
        if error is not None:
            os.waitpid(pid, 0)
            raise error
        return pid


@cache
def _pytests_own() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The one of pytest's own process, and how it is asked."""
    channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(its.fileno())]
    # what it found by PYTHONPATH, it could not tell from what each program is to find
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with its:
        process = subprocess.Popen(
            command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=ROOT, env=env
        )

    def end() -> None:
        channel.close()
        process.wait()

    atexit.register(end)
    return process, channel


@cache
def _server() -> _Server:
    return _Server(_pytests_own()[1], mortal=True)


def fork_from(channel: socket.socket) -> None:
    """In a forked program: what it starts is forked too, and outlives it, as that of a real one."""
    global _server  # noqa: PLW0603 - as it was made in this process
    server = _Server(channel, mortal=False)
    _server = lambda: server  # noqa: E731
    sys.executable = interpreter()


def _at_start(env: Any) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(AT_START) and name != "PYTHONPATH"}


def _inherited() -> dict[str, Any]:
    """What a child has of this process although nobody says so, and tests may have changed since the server began."""
    _, _, umask = Path("/proc/thread-self/status").read_text().partition("Umask:")
    limits = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
    signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    return {
        "umask": int(umask.split()[0], 8),
        "limits": {number: resource.getrlimit(number) for number in limits},
        "ignored": {each for each in signals if signal.getsignal(each) is signal.SIG_IGN},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, []),
    }


@contextmanager
def _mother_of_orphans() -> Iterator[None]:
    """Meanwhile a process whose parent ends becomes a child of this one. Not for longer: what a test has left to
    itself, a detached rack, would be a zombie here.
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0)
